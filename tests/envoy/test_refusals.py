"""What an agent is told that may not pass: its SDK knows the form."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.domain import errors
from broker.envoy.refusals import Refused, body, denied, refusal_of

REFUSED = Refused(401, "LEASE_NOT_FOUND", "the token is of no lease")


@pytest.mark.parametrize(
    ("api", "told"),
    [
        ("messages", {"type": "error", "error": {"type": "authentication_error", "message": "the token is of no lease"}}),
        (
            "gemini",
            {
                "error": {
                    "code": 401,
                    "message": "the token is of no lease",
                    "status": "UNAUTHENTICATED",
                    "details": [
                        {
                            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                            "reason": "LEASE_NOT_FOUND",
                            "domain": "equabot.dev",
                        }
                    ],
                }
            },
        ),
        *(
            (
                api,
                {
                    "error": {
                        "message": "the token is of no lease",
                        "type": "authentication_error",
                        "param": None,
                        "code": "lease_not_found",
                    }
                },
            )
            for api in ("openai", "chat", "")
        ),
    ],
)
def test_a_refusal_is_in_the_vendors_form(api: str, told: dict[str, Any]) -> None:
    """Anthropic's, Google's, and for all others that which most have taken over from OpenAI."""
    assert body(REFUSED, api) == told


def _status(response: Any) -> int:
    return int(response.denied_response.status.code)


def test_the_reason_and_the_wait_stand_in_headers() -> None:
    """For whoever does not read bodies; a wait is in whole seconds, and not none."""
    response = denied(Refused(503, "REFRESH_FAILED", "wait", retry_after=0.2), "messages")
    found = {option.header.key: option.header.value for option in response.denied_response.headers}
    assert found == {"content-type": "application/json", "x-equabot-reason": "REFRESH_FAILED", "retry-after": "1"}
    assert (response.status.code, _status(response)) == (7, 503)
    assert json.loads(response.denied_response.body)["error"]["type"] == "overloaded_error"
    assert denied(REFUSED, "").status.code == 16
    assert "retry-after" not in {option.header.key for option in denied(REFUSED, "").denied_response.headers}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.LeaseNotFound, 401),
        (errors.LeaseExpired, 401),
        (errors.PolicyDenied, 403),
        (errors.InvalidArgument, 403),
        (errors.ReauthRequired, 403),
        (errors.ProfileNotFound, 403),
        (errors.NoUsableProfile, 503),
        (errors.RefreshFailed, 503),
        (errors.SourceNotSynced, 503),
        (errors.AuditUnavailable, 503),
        (errors.ShuttingDown, 503),
    ],
)
def test_what_may_pass_later_is_unavailable_and_what_never_will_is_forbidden(
    error: Callable[[str], errors.BrokerError], status: int
) -> None:
    """SDKs try 503 again by themselves, and the others not."""
    refused = refusal_of(error("why"))
    assert (refused.status, refused.reason, refused.message) == (status, error.reason, "why")  # type: ignore[attr-defined]
