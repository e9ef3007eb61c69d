"""Refusals on the wire."""

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain import errors
from equabot_broker.domain.errors import BrokerError
from equabot_broker.rpc.status import CODES, TRAILER, ServiceUnknown, StatusRefusal, TooManyServices, internal, refusal

KINDS = {
    "INVALID_ARGUMENT": "INVALID_ARGUMENT",
    "PROVIDER_UNKNOWN": "NOT_FOUND",
    "PROFILE_NOT_FOUND": "NOT_FOUND",
    "NO_USABLE_PROFILE": "FAILED_PRECONDITION",
    "POLICY_DENIED": "PERMISSION_DENIED",
    "DELIVERY_NOT_ALLOWED": "PERMISSION_DENIED",
    "LEASE_NOT_FOUND": "NOT_FOUND",
    "LEASE_EXPIRED": "FAILED_PRECONDITION",
    "LEASE_LIMIT": "RESOURCE_EXHAUSTED",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "SOURCE_NOT_SYNCED": "UNAVAILABLE",
    "REFRESH_FAILED": "UNAVAILABLE",
    "REAUTH_REQUIRED": "FAILED_PRECONDITION",
    "AGENT_SUSPENDED": "PERMISSION_DENIED",
    "AUDIT_UNAVAILABLE": "UNAVAILABLE",
    "STATE_UNAVAILABLE": "UNAVAILABLE",
    "SHUTTING_DOWN": "UNAVAILABLE",
}


def info(sent: StatusRefusal) -> ErrorInfo:
    unpacked = ErrorInfo()
    assert status(sent).details[0].Unpack(unpacked)
    return unpacked


def status(sent: StatusRefusal) -> Status:
    ((name, value),) = sent.trailers
    assert name == TRAILER == "grpc-status-details-bin"
    return Status.FromString(value)


def explained(error: Exception) -> StatusRefusal:
    sent = refusal(error)
    assert sent is not None
    return sent


def test_every_reason_has_its_code() -> None:
    """The reasons of the contract, no more and no fewer, each with one code."""
    assert {kind.reason: code.name for kind, code in CODES.items()} == KINDS
    assert set(CODES) == set(BrokerError.__subclasses__())


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.reason)
def test_a_refusal_says_domain_reason_and_message(kind: type[BrokerError]) -> None:
    """What a client may rely on is in the ErrorInfo; the message is the same in both places."""
    sent = explained(kind("what, where, what to do", metadata={"anthropic:work": "expired 3d ago"}))
    assert sent.code is CODES[kind]
    assert sent.details == status(sent).message == "what, where, what to do"
    assert status(sent).code == CODES[kind].value[0]
    assert info(sent) == ErrorInfo(domain="equabot.dev", reason=kind.reason, metadata={"anthropic:work": "expired 3d ago"})


@pytest.mark.parametrize(
    ("after", "seconds", "nanos"), [(1.5, 1, 500_000_000), (0.0, 0, 0), (-3.0, 0, 0), (float("inf"), 315_576_000_000, 0)]
)
def test_when_to_come_again_is_said(after: float, seconds: int, nanos: int) -> None:
    """RetryInfo where the error knows, within what a duration can hold."""
    retry = RetryInfo()
    assert status(explained(errors.RateLimited("too often", retry_after=after))).details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (seconds, nanos)
    assert len(status(explained(errors.RateLimited("too often"))).details) == 1


def test_ten_thousand_candidates_fit_and_are_counted() -> None:
    """What does not fit the headers is left out, and how much that is is said."""
    reasons = {f"anthropic:profile-{n}": "expired 3d4h ago" for n in range(10_000)}
    sent = explained(errors.NoUsableProfile("; ".join(reasons), metadata=reasons))
    shown = dict(info(sent).metadata)
    more = shown.pop("more")
    assert 10 < len(shown) < 100
    assert shown.items() <= reasons.items()
    assert more == f"{10_000 - len(shown)} are not shown"
    assert sent.details.endswith("…")


@given(
    message=st.text(st.characters(), max_size=3000),
    metadata=st.dictionaries(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=300), max_size=40),
)
def test_whatever_is_said_fits_and_can_be_read(message: str, metadata: dict[str, str]) -> None:
    """Names of files need not be UTF-8 and have any length; headers have 8 KiB, percent-encoding and base64 included."""
    sent = explained(errors.NoUsableProfile(message, metadata=metadata))
    assert 3 * len(sent.details.encode()) + 4 * len(sent.trailers[0][1]) / 3 < 7000
    assert info(sent).reason == "NO_USABLE_PROFILE"


def test_the_protocol_of_health_has_codes_of_its_own() -> None:
    """An unknown service is NOT_FOUND, a list too long RESOURCE_EXHAUSTED, neither with a reason of ours."""
    assert explained(ServiceUnknown()) == StatusRefusal(CODES[errors.LeaseNotFound], "unknown service")
    assert explained(TooManyServices("too many")) == StatusRefusal(CODES[errors.LeaseLimit], "too many")


def test_an_unexpected_exception_is_not_a_refusal() -> None:
    """It becomes INTERNAL with an incident to look up, whatever its text was."""
    assert refusal(ValueError("sk-ant-api03-secret")) is None
    sent = internal("1a2b3c4d")
    assert sent.code.name == "INTERNAL"
    assert "1a2b3c4d" in sent.details
    assert sent.trailers == ()
