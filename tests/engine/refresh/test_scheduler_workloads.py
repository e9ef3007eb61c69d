"""What a workload's identity is exchanged for: kept fresh as a login is, and lost without harm."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import NoUsableProfile, RefreshFailed
from equabot_broker.domain.profiles import State
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.leases.streams import NoticeKind
from equabot_broker.oauth.refreshing import Blame, RefreshFailure
from equabot_broker.telemetry.credential_events import CredentialStateChanged, RefreshAttemptFailed, RefreshSucceeded
from equabot_broker.telemetry.events import Event
from tests.fakes.engine import profile
from tests.fakes.workload import ASKED, DOWN, LEAD, LIFE, UNTRIED, World

REFUSED = RefreshFailure(Blame.TRANSIENT, "invalid_grant", "the token endpoint answered 401 invalid_grant")


def told(world: World, kind: type[Event]) -> list[Any]:
    return [event for event in world.emitted if isinstance(event, kind)]


async def test_it_is_exchanged_at_once_and_again_ahead_of_its_end() -> None:
    """And it is well all the time, however short its tokens live."""
    world = World()
    async with world.running():
        await world.clock.elapse(0)
        assert (world.served, world.board.standing.state) == ("wif-1", State.OK)
        await world.clock.elapse(LIFE - LEAD - 1)
        assert world.exchanging.asked == 1
        await world.clock.elapse(3 * (LIFE - LEAD))
        assert (world.served, world.exchanging.asked) == ("wif-4", 4)
        assert world.readiness.status("provider/acme")
    states = [(told.before, told.after) for told in told(world, CredentialStateChanged)]
    assert states == [("", "missing"), ("missing", "ok")]
    assert told(world, RefreshAttemptFailed) == []
    assert len(told(world, RefreshSucceeded)) == 4


async def test_all_who_ask_share_the_first_exchange() -> None:
    """They wait for it, and each gets what came of it."""
    world = World()
    world.exchanging.open.clear()
    async with world.running():
        await world.clock.elapse(1)
        waiting = [asyncio.ensure_future(world.wait()) for _ in range(20)]
        await world.clock.elapse(3)
        assert not any(waiter.done() for waiter in waiting)
        world.exchanging.open.set()
        await world.clock.elapse(0)
        assert {await waiter for waiter in waiting} == {"wif-1"}
    assert world.exchanging.asked == 1


async def test_failed_exchange_ends_the_wait() -> None:
    """The next profile serves them, and the list says why."""
    world = World(DOWN)
    world.exchanging.open.clear()
    world.hold(profile("acme:key", "fallback"), source=1)
    async with world.running():
        await world.clock.elapse(1)
        waiting = asyncio.ensure_future(world.wait())
        await world.clock.elapse(1)
        assert not waiting.done()
        world.exchanging.open.set()
        await world.clock.elapse(0)
        assert await waiting == "fallback"
        first, second = world.profile_statuses.of("main", "acme")
    assert (first.id, first.next) == ("acme:key", True)
    assert (second.id, second.state, second.usable) == ("acme:pod", "missing", False)
    assert second.reason == "not exchanged yet; the token endpoint answered 503"


async def test_failed_exchange_without_another_profile_is_raised() -> None:
    """REFRESH_FAILED, with the time of the next try; and health says so."""
    world = World(DOWN)
    async with world.running():
        await world.clock.elapse(0)
        with pytest.raises(RefreshFailed, match="503") as failed:
            await world.wait(within=0)
        assert failed.value.retry_after is not None
        assert world.readiness.status("provider/acme") is False


async def test_the_last_token_serves_to_its_end() -> None:
    """While exchanges fail it is `expiring`; then `expired`; and the first success brings it back."""
    world = World(None, REFUSED)
    world.hold(profile("acme:key", "fallback"), source=1)
    async with world.running():
        await world.clock.elapse(LIFE - 10)
        assert (world.served, world.board.standing.state) == ("wif-1", State.EXPIRING)
        assert world.board.standing.reason.endswith(REFUSED.reason)
        await world.clock.elapse(11)
        assert (world.served, world.board.standing.state) == ("fallback", State.EXPIRED)
        tries = world.exchanging.asked
        assert 5 < tries < 15
        world.exchanging.outcomes = [None]
        await world.clock.elapse(301)
        assert (world.served, world.board.standing.state) == (f"wif-{tries + 1}", State.OK)


async def test_the_endpoint_may_say_when_to_come_again() -> None:
    """As a file does that somebody is about to mend: sooner than after a row of failures."""
    world = World(RefreshFailure(Blame.TRANSIENT, "no_identity", "there is no token", 15.0))
    async with world.running():
        await world.clock.elapse(150)
        assert world.exchanging.asked == 11


async def test_a_token_that_the_provider_refuses_is_replaced_at_once() -> None:
    """That token and no other: what is reported of an older one does no harm."""
    world = World()
    world.hold(profile("acme:key", "fallback"), source=1)
    async with world.running():
        await world.clock.elapse(0)
        lease = world.lease_service.acquire("main", ASKED)
        version = lease.held.version
        world.exchanging.open.clear()
        with pytest.raises(RefreshFailed):
            world.lease_service.report("main", lease.lease.id, Outcome.AUTH, version=version)
        await world.clock.elapse(0)
        assert (world.board.standing.state, world.board.standing.usable) == (State.EXPIRED, False)
        world.exchanging.open.set()
        await world.clock.elapse(0)
        assert (world.served, world.board.standing.state, world.exchanging.asked) == ("wif-2", State.OK, 2)
        world.lease_service.report("main", lease.lease.id, Outcome.AUTH, version=version)
        await world.clock.elapse(60)
    assert (world.board.standing.state, world.exchanging.asked) == (State.OK, 2)


async def test_one_that_is_refused_again_right_away_is_rejected() -> None:
    """Exchanging does not help, so others serve; the next token, when its time comes, has its chance."""
    world = World()
    world.hold(profile("acme:key", "fallback"), source=1)
    async with world.running():
        await world.clock.elapse(0)
        lease = world.lease_service.acquire("main", LeaseRequest(provider="acme", profile="acme:pod"))
        for _ in range(2):
            held = world.lease_service.look(lease.lease.id).held
            with suppress(RefreshFailed, NoUsableProfile):
                world.lease_service.report("main", lease.lease.id, Outcome.AUTH, version=held.version)
            await world.clock.elapse(0)
        assert (world.board.standing.state, world.served, world.exchanging.asked) == (State.REJECTED, "fallback", 2)
        await world.clock.elapse(LIFE - LEAD)
        assert (world.board.standing.state, world.exchanging.asked) == (State.OK, 3)


async def test_an_open_stream_follows() -> None:
    """Every new token is a rotation of the same lease, which does not end with a token."""
    world = World()
    async with world.running():
        await world.clock.elapse(0)
        with world.lease_service.stream("main", ASKED) as stream:
            notice = first = await stream.next()
            await world.clock.elapse(LIFE - LEAD)
            while notice.kind is not NoticeKind.ROTATED:
                notice = await asyncio.wait_for(stream.next(), 60)
                assert notice.kind is not NoticeKind.REVOKED
            assert notice.grant is not None
            assert notice.grant.held.profile.secret == SecretValue("wif-2")
            assert notice.lease_id == first.lease_id


async def test_exchange_does_not_delay_the_shutdown() -> None:
    """Unlike a refresh, which may cost a login."""
    world = World()
    world.exchanging.open.clear()
    async with world.running():
        await world.clock.elapse(0)
        assert world.exchanging.asked == 1
        await asyncio.wait_for(world.refresh_scheduler.drain(), 60)


async def test_workload_identity_is_not_hidden() -> None:
    """Not even one of its name that ends later: it is the workload's own."""
    world = World()
    world.hold(profile(UNTRIED.id, "stored", expires_at=world.clock.now() + 10 * LIFE), source=1)
    async with world.running():
        await world.clock.elapse(0)
        assert world.served == "wif-1"
