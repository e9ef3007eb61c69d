"""The refusal that an agent gets: its SDK knows the form."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from equabot_broker.domain import errors
from equabot_broker.envoy.refusals import RequestRefused, body, denied, refusal_of

REFUSED = RequestRefused(401, "LEASE_NOT_FOUND", "the token is of no lease")


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


def _headers(refused: RequestRefused) -> dict[str, str]:
    return {option.header.key: option.header.value for option in denied(refused, "").denied_response.headers}


@pytest.mark.parametrize(
    ("refused", "final"),
    [
        (RequestRefused(401, "KEY_REFUSED", "no"), True),
        (RequestRefused(401, "TOKEN_MISSING", "no"), True),
        (RequestRefused(403, "POLICY_DENIED", "no"), True),
        (RequestRefused(404, "PROVIDER_UNKNOWN", "no"), True),
        (RequestRefused(503, "NO_USABLE_PROFILE", "no credential"), True),
        (RequestRefused(503, "NO_USABLE_PROFILE", "no", retry_after=18_000.0), True),
        (RequestRefused(503, "NO_USABLE_PROFILE", "no", retry_after=20.0), False),
        (RequestRefused(503, "REFRESH_FAILED", "no"), False),
        (RequestRefused(503, "SHUTTING_DOWN", "no"), False),
        (RequestRefused(429, "RATE_LIMITED", "no", retry_after=1.0), False),
        (RequestRefused(401, "LEASE_NOT_FOUND", "no"), False),
        (RequestRefused(401, "LEASE_EXPIRED", "no"), False),
    ],
)
def test_a_final_refusal_is_not_to_be_tried_again(refused: RequestRefused, final: bool) -> None:
    """C10: SDKs obey the header, also where the status alone would have them try again; a token may be fetched again."""
    assert (_headers(refused).get("x-should-retry") == "false") is final
    retried = refused.status in (408, 409, 429) or refused.status >= 500
    assert not final or not retried or body(refused, "messages")["error"]["type"] != "overloaded_error"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "1 s"),
        (59.5, "60 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (3660.0, "1 h 1 min"),
        (86_400.0, "1 d"),
        (18_000.0, "5 h"),
    ],
)
def test_a_refusal_says_when_it_ends(seconds: float, shown: str) -> None:
    """P21: in a header for programs, in words for a person, and as Google's packages read it."""
    refused = RequestRefused(503, "NO_USABLE_PROFILE", "no usable profile", retry_after=seconds)
    assert int(_headers(refused)["retry-after"]) == max(1, round(seconds + 0.5 - 1e-9))
    for api in ("messages", "openai", "gemini"):
        assert body(refused, api)["error"]["message"] == f"no usable profile; try again in {shown}"
    assert body(refused, "gemini")["error"]["details"][1]["retryDelay"] == f"{_headers(refused)['retry-after']}s"


def test_the_reason_and_the_wait_stand_in_headers() -> None:
    """For clients that do not read bodies; a wait is in whole seconds, and at least one."""
    response = denied(RequestRefused(503, "REFRESH_FAILED", "wait", retry_after=0.2), "messages")
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
