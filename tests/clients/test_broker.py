"""The plain calls, over the real wire."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

import equabot_client
from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import Broker, EventKind, Outcome, Profile, errors
from tests.fakes.broker_servicer import FakeBroker, Refusal


def test_a_lease_comes_as_the_broker_gave_it(fake: FakeBroker, broker: Broker) -> None:
    """Every field, in Python's types; absent ones are None."""
    lease = broker.acquire("anthropic", session="s", model="claude", ttl=timedelta(minutes=5), delivery="raw")
    assert (lease.id, lease.provider, lease.profile, lease.mode) == ("lease-1", "anthropic", "anthropic:env", "api_key")
    assert lease.secret.reveal() == lease.headers["x-api-key"] == lease.env["ANTHROPIC_API_KEY"] == fake.secret
    assert lease.expires_at - lease.issued_at == timedelta(minutes=5)
    assert lease.max_expires_at - lease.issued_at == timedelta(hours=1)
    assert lease.issued_at.tzinfo is UTC
    assert (lease.credential_expires_at, lease.renewable, lease.version) == (None, True, 1)
    asked = fake.requests[0]
    assert (asked.provider, asked.profile, asked.session, asked.model) == ("anthropic", "", "s", "claude")
    assert (asked.ttl.ToTimedelta(), asked.delivery) == (timedelta(minutes=5), "raw")


def test_what_is_not_asked_for_is_left_to_the_broker(fake: FakeBroker, broker: Broker) -> None:
    """An absent TTL is not a TTL of zero, and a zero one is not an absent one: it is the broker's to refuse."""
    broker.acquire("anthropic")
    broker.acquire("anthropic", ttl=timedelta(0))
    broker.acquire("anthropic", ttl=timedelta(seconds=-1.5))
    assert [request.HasField("ttl") for request in fake.requests] == [False, True, True]
    assert fake.requests[2].ttl.ToTimedelta() == timedelta(seconds=-1.5)


def test_a_profile_id_may_stand_for_the_provider(fake: FakeBroker, broker: Broker) -> None:
    """`anthropic:work` means that profile alone."""
    broker.acquire("anthropic:work")
    broker.acquire("anthropic", profile="anthropic:work")
    assert [(r.provider, r.profile) for r in fake.requests] == [("", "anthropic:work"), ("anthropic", "anthropic:work")]


def test_a_lease_is_given_back_at_the_end_of_its_block(fake: FakeBroker, broker: Broker) -> None:
    """Also when the block fails."""
    with pytest.raises(ZeroDivisionError), broker.lease("anthropic"):
        _ = len(fake.revoked) / len(fake.revoked)
    assert fake.revoked == ["lease-1"]


def test_a_lease_that_cannot_be_given_back_hides_no_error_of_the_block(fake: FakeBroker, broker: Broker) -> None:
    """It expires by itself."""
    with broker.lease("anthropic"):
        fake.stop()


def test_a_renewed_lease_keeps_the_token_that_was_told_first(fake: FakeBroker, broker: Broker) -> None:
    """A broker that was restarted does not know it; nor does who renews by an id alone."""
    fake.delivery = "brokered"
    lease = broker.acquire("anthropic")
    fake.stop()
    fake.start()
    assert broker.renew(lease).secret == lease.secret
    assert broker.renew(lease).env == lease.env
    assert broker.renew(lease.id).secret.reveal() == ""


def test_renew_revoke_and_report_take_a_lease(fake: FakeBroker, broker: Broker) -> None:
    """The version goes along with a report, so that news of old material changes nothing."""
    lease = broker.acquire("anthropic")
    assert broker.renew(lease, ttl=timedelta(minutes=1)).id == broker.renew(lease.id).id == lease.id
    fake.change_on_report = "sk-spare"
    assert broker.report(lease, Outcome.RATE_LIMIT, retry_after=timedelta(seconds=1.5)) is True
    asked = fake.requests[-1]
    assert (asked.lease_id, asked.outcome, asked.version) == (lease.id, pb.RATE_LIMIT, 1)
    assert asked.retry_after.ToTimedelta() == timedelta(seconds=1.5)
    assert broker.renew(lease).secret.reveal() == "sk-spare"
    broker.revoke(lease)
    broker.revoke(lease.id)
    assert fake.revoked == [lease.id, lease.id]
    with pytest.raises(errors.LeaseNotFound):
        broker.renew(lease)


def test_every_outcome_has_its_name_on_the_wire() -> None:
    """None is missing on either side."""
    assert {outcome.name for outcome in Outcome} == set(pb.Outcome.keys()) - {"OUTCOME_UNSPECIFIED"}
    assert {kind.name for kind in EventKind} - {"UNKNOWN"} == set(pb.LeaseEvent.Kind.keys()) - {"KIND_UNSPECIFIED"}


def test_profiles_are_listed_as_the_broker_orders_them(fake: FakeBroker, broker: Broker) -> None:
    """With the instants that are known."""
    status = pb.ProfileStatus(id="anthropic:env", provider="anthropic", mode="api_key", source="env", state="ok", next=True)
    status.expires_at.FromDatetime(datetime(2027, 1, 1, tzinfo=UTC))
    fake.profiles = [status, pb.ProfileStatus(id="anthropic:b", state="invalid", reason="empty", version=3)]
    first, second = broker.list_profiles("anthropic", session="s")
    assert first == Profile(
        id="anthropic:env",
        provider="anthropic",
        mode="api_key",
        source="env",
        state="ok",
        reason="",
        next=True,
        usable=False,
        pinned=False,
        label="",
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        cooldown_until=None,
        disabled_until=None,
        disabled_reason="",
        last_used_at=None,
        base_url="",
        version=0,
    )
    assert (second.id, second.state, second.reason, second.version) == ("anthropic:b", "invalid", "empty", 3)
    assert (fake.requests[-1].provider, fake.requests[-1].session) == ("anthropic", "s")


def test_a_session_is_pinned_and_unpinned(fake: FakeBroker, broker: Broker) -> None:
    """All that is said arrives."""
    broker.pin("s", "anthropic", profile="work", strict=True)
    broker.unpin("s", "anthropic")
    assert fake.requests == [
        pb.PinProfileRequest(session="s", provider="anthropic", profile="work", strict=True),
        pb.UnpinProfileRequest(session="s", provider="anthropic"),
    ]


def test_a_stream_tells_what_happens_and_ends_with_the_lease(fake: FakeBroker, broker: Broker) -> None:
    """The lease is there on every event but the last."""
    events = broker.stream("anthropic")
    granted = next(events)
    fake.wait_until(lambda: fake.streams)
    fake.rotate("sk-two")
    fake.push(pb.LeaseEvent.REVOKED, reason="policy")
    rotated, revoked = events
    assert (granted.kind, rotated.kind, revoked.kind) == (EventKind.GRANTED, EventKind.ROTATED, EventKind.REVOKED)
    assert rotated.lease is not None
    assert rotated.lease.secret.reveal() == "sk-two"
    assert (revoked.lease, revoked.reason, revoked.lease_id) == (None, "policy", "lease-1")


def test_a_stream_that_is_left_ends_its_lease(fake: FakeBroker, broker: Broker) -> None:
    """Closing the iterator is enough."""
    events = broker.stream("anthropic")
    next(events)
    events.close()  # type: ignore[attr-defined]
    fake.wait_until(lambda: fake.revoked == ["lease-1"])


@pytest.mark.parametrize("method", ["acquire", "stream"])
def test_a_broker_that_never_answers_is_given_up(fake: FakeBroker, method: str) -> None:
    """Every call has a deadline, the first event of a stream too."""
    fake.silent = {"AcquireLease", "StreamLease"}
    with equabot_client.connect(fake.address, timeout=0.2) as broker, pytest.raises(errors.DeadlineExceeded):
        list(broker.stream("anthropic")) if method == "stream" else broker.acquire("anthropic")


def test_a_broker_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Where it was looked for, and what may be wrong."""
    address = tmp_path / "broker.sock"
    with (
        equabot_client.connect(str(address)) as broker,
        pytest.raises(errors.BrokerUnavailable, match=f"no broker answers at unix:{address}: is one running"),
    ):
        broker.acquire("anthropic")


def test_an_error_has_its_reason_candidates_and_wait(fake: FakeBroker, broker: Broker) -> None:
    """As sent in the details of the status."""
    why = {"anthropic:env": "in cooldown for 5m", "anthropic:work": "expired"}
    fake.refusals["AcquireLease"] = Refusal(
        grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_PROFILE", "none of 2 profiles can serve", why, retry_after=300
    )
    with pytest.raises(errors.NoUsableProfile, match="none of 2 profiles can serve") as raised:
        broker.acquire("anthropic")
    assert (raised.value.candidates, raised.value.retryable, raised.value.retry_after) == (why, True, 300)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unsupported),
        (grpc.StatusCode.UNAVAILABLE, errors.BrokerUnavailable),
        (grpc.StatusCode.INTERNAL, errors.Unexpected),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unexpected),
    ],
)
def test_an_error_that_is_not_the_brokers_is_told_apart(
    fake: FakeBroker, broker: Broker, code: grpc.StatusCode, kind: type[errors.EquabotError]
) -> None:
    """It comes without an ErrorInfo: from a proxy, or from something that is no broker."""
    fake.refusals["AcquireLease"] = Refusal(code, message="bad gateway")
    with pytest.raises(kind, match="bad gateway"):
        broker.acquire("anthropic")


def test_connecting_does_nothing_yet(tmp_path: Path) -> None:
    """Neither a thread nor a connection before the first call, and closing what was never used is fine."""
    before = threading.active_count()
    broker = equabot_client.connect(str(tmp_path / "no.sock"))
    broker.credential("anthropic")
    assert threading.active_count() == before
    broker.close()
    broker.close()


def test_a_closed_broker_says_so(broker: Broker) -> None:
    """Whatever is asked of it."""
    broker.acquire("anthropic")
    broker.close()
    with pytest.raises(errors.CredentialClosed, match="closed"):
        broker.acquire("anthropic")
    with pytest.raises(errors.CredentialClosed, match="closed"):
        broker.credential("anthropic").headers()


def test_the_package_needs_nothing_but_grpc_and_protobuf() -> None:
    """Importing it, and its asyncio side, loads no HTTP library, no broker and no googleapis."""
    code = (
        "import sys, equabot_client, equabot_client.aio\n"
        "unwanted = {'httpx', 'httpx2', 'equabot_broker', 'anyio', 'google.rpc', 'yaml'}\n"
        "sys.exit(repr(unwanted & set(sys.modules)) if unwanted & set(sys.modules) else 0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
