"""The plain calls for event loops, over the real wire. Requests and answers are those of `Broker`."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

import equabot_client.aio
from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import EventKind, Outcome, errors
from equabot_client.aio import AsyncBroker
from tests.fakes.broker_servicer import FakeBroker


async def test_a_lease_lives_as_its_block_does(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """Renewed and reported meanwhile."""
    async with aio_broker.lease("anthropic:work", ttl=timedelta(minutes=5)) as lease:
        assert lease.secret.reveal() == fake.secret
        assert (await aio_broker.renew(lease)).id == lease.id
        fake.change_on_report = "sk-spare"
        assert await aio_broker.report(lease, Outcome.BILLING) is True
    assert fake.revoked == [lease.id]
    assert fake.calls == ["AcquireLease", "RenewLease", "ReportOutcome", "RevokeLease"]


async def test_sessions_are_pinned_and_profiles_listed(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """All that is said arrives."""
    fake.profiles = [pb.ProfileStatus(id="anthropic:env", state="ok")]
    await aio_broker.pin("s", "anthropic", profile="work")
    await aio_broker.unpin("s", "anthropic")
    assert [profile.id for profile in await aio_broker.list_profiles("anthropic", session="s")] == ["anthropic:env"]
    assert fake.requests == [
        pb.PinProfileRequest(session="s", provider="anthropic", profile="work"),
        pb.UnpinProfileRequest(session="s", provider="anthropic"),
        pb.ListProfilesRequest(provider="anthropic", session="s"),
    ]


async def test_a_stream_tells_what_happens_and_ends_with_the_lease(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """And the lease ends with the stream."""
    events = aio_broker.stream("anthropic")
    assert (await anext(events)).kind is EventKind.GRANTED
    await asyncio.to_thread(fake.wait_until, lambda: fake.streams)
    fake.push(pb.LeaseEvent.REVOKED, reason="policy")
    assert [(event.kind, event.reason) async for event in events] == [(EventKind.REVOKED, "policy")]


@pytest.mark.parametrize("method", ["acquire", "stream"])
async def test_a_broker_that_never_answers_is_given_up(fake: FakeBroker, method: str) -> None:
    """Every call has a deadline, the first event of a stream too."""
    fake.silent = {"AcquireLease", "StreamLease"}
    async with equabot_client.aio.connect(fake.address, timeout=0.2) as broker:
        waiting = anext(broker.stream("anthropic")) if method == "stream" else broker.acquire("anthropic")
        with pytest.raises(errors.DeadlineExceeded):
            await waiting


async def test_a_broker_that_is_not_there_and_one_that_is_closed_are_told_apart(tmp_path: Path) -> None:
    """Connecting does nothing; closing can be done twice."""
    broker = equabot_client.aio.connect(str(tmp_path / "broker.sock"))
    with pytest.raises(errors.BrokerUnavailable, match="is one running"):
        await broker.acquire("anthropic")
    await broker.close()
    await broker.close()
    with pytest.raises(errors.CredentialClosed):
        await broker.acquire("anthropic")
