"""Messages → what the engine is asked."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.rpc import requests

TEN_YEARS = 10 * 365 * 86400


def test_a_request_becomes_what_the_engine_takes() -> None:
    """Every field arrives, the time to live in seconds."""
    message = broker_pb2.AcquireLeaseRequest(
        provider="anthropic", profile="anthropic:work", session="talk", model="claude", delivery="raw",
        ttl=Duration(seconds=90, nanos=500_000_000),
    )  # fmt: skip
    assert requests.acquire(message) == LeaseRequest(
        provider="anthropic", profile="anthropic:work", session="talk", model="claude", delivery="raw", ttl=90.5
    )
    assert requests.acquire(broker_pb2.AcquireLeaseRequest()) == LeaseRequest()


@pytest.mark.parametrize("seconds", [0, -1, TEN_YEARS, 315_576_000_000])
def test_a_ttl_is_passed_on_as_it_is(seconds: int) -> None:
    """Whether it is granted is not decided here: zero and negative ones are refused, ten years are cut, by the domain."""
    message = broker_pb2.AcquireLeaseRequest(ttl=Duration(seconds=seconds))
    assert requests.acquire(message).ttl == seconds


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(315_576_000_001, 0), (-315_576_000_001, 0), (2**63 - 1, 0), (0, 1_000_000_000), (1, -1), (-1, 1), (0, -(2**31))],
)
def test_a_duration_that_is_none_is_refused(seconds: int, nanos: int) -> None:
    """Out of range, or of two signs."""
    broken = Duration()
    broken.ParseFromString(_varints(seconds, nanos))
    for ask in (
        lambda: requests.acquire(broker_pb2.AcquireLeaseRequest(provider="anthropic", ttl=broken)),
        lambda: requests.renew(broker_pb2.RenewLeaseRequest(lease_id="l", ttl=broken)),
        lambda: requests.outcome(broker_pb2.ReportOutcomeRequest(outcome=broker_pb2.RATE_LIMIT, retry_after=broken)),
    ):
        with pytest.raises(InvalidArgument, match="is not a valid duration"):
            ask()


def _varints(seconds: int, nanos: int) -> bytes:
    def varint(number: int) -> bytes:
        number &= 2**64 - 1
        out = bytearray()
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        return bytes([*out, number])

    return b"\x08" + varint(seconds) + b"\x10" + varint(nanos)


@pytest.mark.parametrize("field", ["provider", "profile", "session", "model", "delivery"])
@pytest.mark.parametrize("value", ["x" * 257, "a\nb", "a\0b", "\x1b[31m", "\u202ereversed", "sk-ant-api03-" + "k9" * 40])
def test_a_text_that_is_not_a_name_is_refused_by_field(field: str, value: str) -> None:
    """Too long, not printable, or a key: it would end up in logs and on terminals. The field is named, not the value."""
    with pytest.raises(InvalidArgument, match=f"^{field} ") as raised:
        requests.acquire(broker_pb2.AcquireLeaseRequest(**{field: value}))  # type: ignore[arg-type]
    assert value not in raised.value.message
    assert requests.acquire(broker_pb2.AcquireLeaseRequest(session="Gespräch 7 · ✓" + "x" * 200)).session


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_its_number(outcome: Outcome) -> None:
    """The wire's names and the domain's are the same."""
    number = broker_pb2.Outcome.Value(outcome.name)
    reported = requests.outcome(broker_pb2.ReportOutcomeRequest(outcome=number))
    assert reported == requests.Reported(outcome=outcome, retry_after=None, version=0, model="", elapsed=None, sure=True)


def test_a_report_says_which_request_it_is_of() -> None:
    """P3, P18: the model that was asked, how long ago, and whether it was that request that was refused."""
    message = broker_pb2.ReportOutcomeRequest(
        outcome=broker_pb2.AUTH, model="opus", elapsed=Duration(seconds=7), about_request=True, version=3
    )
    reported = requests.outcome(message)
    assert reported == requests.Reported(
        outcome=Outcome.AUTH, retry_after=None, version=3, model="opus", elapsed=7.0, sure=False
    )


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (broker_pb2.ReportOutcomeRequest(), "outcome 0 is not known: use OK, AUTH, RATE_LIMIT, BILLING, TIMEOUT, FORMAT"),
        (broker_pb2.ReportOutcomeRequest(outcome=99), "outcome 99 is not known"),  # type: ignore[arg-type]
        (broker_pb2.ReportOutcomeRequest(outcome=broker_pb2.OK, version=-1), "version -1"),
        (broker_pb2.ReportOutcomeRequest(outcome=broker_pb2.OK, retry_after=Duration(seconds=-1)), "negative"),
        (broker_pb2.ReportOutcomeRequest(outcome=broker_pb2.OK, elapsed=Duration(seconds=-1)), "elapsed must not be negative"),
        (broker_pb2.ReportOutcomeRequest(outcome=broker_pb2.OK, model="a\nb"), "model has"),
    ],
)
def test_an_outcome_that_says_nothing_is_refused(message: broker_pb2.ReportOutcomeRequest, told: str) -> None:
    """Unspecified, from the future, or absurd."""
    with pytest.raises(InvalidArgument, match=told):
        requests.outcome(message)


def test_what_must_be_said_is_asked_for() -> None:
    """By the name of its field."""
    with pytest.raises(InvalidArgument, match=r"^lease_id is missing$"):
        requests.renew(broker_pb2.RenewLeaseRequest())
    with pytest.raises(InvalidArgument, match=r"^profiles is missing$"):
        requests.order(admin_pb2.SetOrderRequest(profiles=["anthropic:a", ""]))
    with pytest.raises(InvalidArgument, match="ClearOrder"):
        requests.order(admin_pb2.SetOrderRequest())


@given(st.floats(allow_nan=False, allow_infinity=False), st.text("0123456789abcdef", max_size=32))
def test_a_page_token_leads_back_to_its_place(issued_at: float, lease_id: str) -> None:
    """Exactly, whatever the clock says."""
    message = admin_pb2.ListLeasesRequest(page_token=requests.page_token(issued_at, lease_id))
    assert requests.page(message, largest=1000) == (1000, (issued_at, lease_id))


@pytest.mark.parametrize(("asked", "size"), [(0, 1000), (7, 7), (1000, 1000), (2**31 - 1, 1000)])
def test_a_page_has_a_largest_size(asked: int, size: int) -> None:
    """Zero means the largest; more is cut to it."""
    assert requests.page(admin_pb2.ListLeasesRequest(page_size=asked), largest=1000)[0] == size


@pytest.mark.parametrize(
    "broken", [{"page_size": -1}, {"page_token": "x"}, {"page_token": "l/0x1p3"}, {"page_token": "0x1p99999/l"}]
)
def test_a_page_that_is_none_is_refused(broken: dict[str, Any]) -> None:
    """Negative sizes, and tokens that no answer held."""
    with pytest.raises(InvalidArgument, match="page_"):
        requests.page(admin_pb2.ListLeasesRequest(**broken), largest=1000)
