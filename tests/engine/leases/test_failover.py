"""Failover: one hop to where a lease can stay, whatever else happens in the same breath."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from equabot_broker.domain.cooldowns import Outcome, Usage
from equabot_broker.domain.errors import LeaseNotFound, NoUsableProfile, ProfileNotFound
from equabot_broker.domain.leases import Lease
from equabot_broker.engine.leases.mailboxes import LeaseChange
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.leases.streams import LeaseStream
from equabot_broker.engine.profiles.registry import Key
from equabot_broker.telemetry.lease_events import LeaseRevoked
from tests.fakes.engine import ANYTHING, Engine, profile

A, B, C = "anthropic:a", "anthropic:b", "anthropic:c"
ANY = LeaseRequest(provider="anthropic")


@pytest.fixture
def engine() -> Engine:
    made = Engine(agents={"main": ANYTHING, "other": ANYTHING})
    made.put(profile(A), profile(B), profile(C))
    return made


def stream(engine: Engine, agent: str = "main", named: str = "") -> LeaseStream:
    return engine.lease_service.stream(agent, replace(ANY, profile=named))


def lease_of(engine: Engine, one: LeaseStream) -> Lease:
    lease = engine.lease_table.get(one._granted.lease.id)
    assert lease is not None
    return lease


def on(engine: Engine) -> list[str]:
    return [lease.profile for lease in engine.lease_admin.active()]


def cool(engine: Engine, *profiles: str) -> None:
    for profile_id in profiles:
        engine.registry.replace_usage(("", profile_id), Usage(cooldown_until=engine.clock.now() + 60))


# -- settling -------------------------------------------------------------------------------------------------------------


async def test_usable_profile_keeps_its_lease(engine: Engine) -> None:
    """Nothing is chosen for it, so no turn is taken."""
    lease = lease_of(engine, stream(engine))
    assert engine.failover.resolve(lease) is lease
    assert engine.resolver.plan("main", "anthropic").ordered()[0].id == B


async def test_failed_failover_raises_the_reason(engine: Engine) -> None:
    """As choosing would."""
    automatic, named = (engine.lease_service.acquire("main", replace(ANY, profile=i)).lease for i in ("", B))
    engine.put(profile(A, None))
    with pytest.raises(NoUsableProfile):
        engine.failover.resolve(automatic)
    with pytest.raises(ProfileNotFound):
        engine.failover.resolve(named)
    with pytest.raises(LeaseNotFound):
        engine.failover.look(named)


async def test_a_moved_lease_keeps_its_end(engine: Engine) -> None:
    """But for what is left of the credential that it moves to."""
    lease = engine.lease_service.acquire("main", ANY).lease
    engine.put(profile(B, expires_at=engine.clock.now() + 60))
    moved = engine.failover.resolve(lease)
    assert moved == replace(lease, profile=B, expires_at=engine.clock.steady() + 60)


async def test_deleted_profile_ends_its_leases(engine: Engine) -> None:
    """A lease without a stream ends with its profile, unless another could take it: then it is moved when its holder asks."""
    named, automatic = (engine.lease_service.acquire("main", replace(ANY, profile=i)).lease for i in (B, ""))
    assert (named.profile, automatic.profile) == (B, A)
    engine.put(profile(C))
    assert list(engine.lease_admin.active()) == [automatic]
    engine.put()
    assert list(engine.lease_admin.active()) == []
    assert [event.reason for event in engine.emitted if isinstance(event, LeaseRevoked)] == ["no_usable_profile"] * 2
    with pytest.raises(LeaseNotFound):
        engine.lease_service.renew("main", named.id)


async def test_hidden_profile_ends_no_lease(engine: Engine) -> None:
    """An agent's own profile of the same name goes: everybody's is there again, and so is the lease of whoever had that."""
    engine.put(profile(A, "own", agent="other"), profile(A))
    leases = [engine.lease_service.acquire(agent, replace(ANY, profile=A)).lease for agent in ("main", "other")]
    engine.put(profile(A))
    assert list(engine.lease_admin.active()) == leases


# -- several things at once -----------------------------------------------------------------------------------------------


async def test_one_change_moves_a_lease_once(engine: Engine) -> None:
    """What vanishes in the same listing is not stopped at on the way."""
    one = stream(engine)
    engine.put(profile(B, None), profile(C))
    assert on(engine) == [C]
    assert one._mailbox._change == LeaseChange.ROTATED


async def test_removal_of_all_profiles_ends_all_leases(engine: Engine) -> None:
    """A thousand streams over three profiles that vanish together end, each for the one reason, and leave nothing behind."""
    streams = [stream(engine, "main" if n % 2 else "other") for n in range(1000)]
    engine.put()
    assert engine.lease_admin.count() == (0, 0)
    assert Counter(event.reason for event in engine.emitted if isinstance(event, LeaseRevoked)) == {"no_usable_profile": 1000}
    assert all(LeaseChange.ENDED in one._mailbox._change for one in streams)
    assert len(engine.lease_table.deadlines) < 1100


async def test_thousand_streams_spread_evenly(engine: Engine) -> None:
    """In one turn."""
    streams = [stream(engine, named="") for _ in range(999)]
    assert Counter(on(engine)) == {A: 333, B: 333, C: 333}
    engine.put(profile(B), profile(C))
    assert sorted(Counter(on(engine)).values()) == [499, 500]
    assert sum(one._mailbox._change == LeaseChange.ROTATED for one in streams) == 333


async def test_merged_moves_are_one_notice(engine: Engine) -> None:
    """A profile that cools, heals and cools before anyone reads."""
    one = stream(engine)
    cool(engine, A, B)
    assert on(engine) == [C]
    cool(engine, C)
    engine.registry.replace_usage(("", A), Usage())
    assert on(engine) == [A]
    assert one._mailbox._change == LeaseChange.ROTATED


# -- changes inside changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 99])
async def test_leases_may_end_while_others_are_being_moved(engine: Engine, place: int) -> None:
    """Somebody else who listens revokes them, before or after failover had its turn."""
    streams = [stream(engine) for _ in range(9)]

    def revoke(_: frozenset[Key]) -> None:
        for one in streams[::2]:
            engine.lease_service.revoke("main", one._granted.lease.id)

    engine.registry.listeners.insert(place, revoke)
    engine.put(profile(B), profile(C))
    assert engine.lease_admin.count() == (4, 4)
    assert set(on(engine)) <= {B, C}


async def test_listener_may_end_another_lease(engine: Engine) -> None:
    """A sink that revokes everything of an agent when one of its streams ends: each ends once."""
    for _ in range(5):
        stream(engine)
        stream(engine, named=A)

    def avenge(event: object) -> None:
        if isinstance(event, LeaseRevoked) and event.reason == "no_usable_profile":
            engine.lease_admin.revoke_matching(agent=event.agent)

    engine.events.sinks.append(avenge)
    engine.put(profile(B), profile(C))
    assert engine.lease_admin.count() == (0, 0)
    ends = Counter(event.reason for event in engine.emitted if isinstance(event, LeaseRevoked))
    assert ends == {"no_usable_profile": 1, "revoked": 9}


async def test_listener_may_report_another_failure(engine: Engine) -> None:
    """A listener that brings down the next profile when it hears of one: the stream is decided on when all is said."""
    one = stream(engine)

    def domino(keys: frozenset[Key]) -> None:
        for _, profile_id in keys:
            following = {A: B, B: C}.get(profile_id)
            if following and not engine.registry.usage(("", following)).cooldown_until:
                cool(engine, following)

    engine.registry.listeners.append(domino)
    engine.put(profile(A, "rotated"), profile(B), profile(C))
    assert engine.registry.usage(("", C)).cooldown_until
    assert on(engine) == [A]
    engine.clock.advance(1)
    cool(engine, A)
    assert lease_of(engine, one).profile == B


async def test_granting_while_everything_changes(engine: Engine) -> None:
    """A listener that takes a stream of its own gets one that can serve, and it is not lost."""
    taken: list[str] = []

    def take(_: frozenset[Key]) -> None:
        if len(taken) < 3:
            taken.append(stream(engine, "other")._granted.lease.profile)

    engine.registry.listeners.insert(0, take)
    stream(engine)
    engine.put(profile(C))
    cool(engine, C)
    assert set(taken) == {C}
    assert engine.lease_admin.count() == (1 + len(taken), 1 + len(taken))


async def test_time_that_passes_inside_a_change(engine: Engine) -> None:
    """A credential that expires while a failover is being decided is not moved to: whoever asks next sees it, and moves on."""
    engine.put(profile(A), profile(B, expires_at=engine.clock.now() + 10), profile(C))
    one = stream(engine)
    engine.registry.listeners.insert(0, lambda _: engine.clock.advance(5))
    engine.lease_service.report("main", one._granted.lease.id, Outcome.RATE_LIMIT)
    engine.clock.advance(10)
    engine.expiry.turn()
    assert on(engine) == [C]
    async with asyncio.timeout(60):
        await one.next()
        notice = await one.next()
    assert notice.grant is not None
    assert notice.grant.lease.profile == C
