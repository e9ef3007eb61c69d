"""The loop that minds the time: it comes when something is due, not much more often, and survives every clock."""

import asyncio

import pytest

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.profiles import State
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.telemetry.broker_events import ClockJumped, StoreFaulted, StoreRecovered
from equabot_broker.telemetry.lease_events import LeaseRevoked
from tests.fakes.engine import Engine, profile

A, B = "anthropic:a", "anthropic:b"
ANY = LeaseRequest(provider="anthropic")


@pytest.fixture
def engine() -> Engine:
    made = Engine()
    made.put(profile(A), profile(B))
    return made


def told(engine: Engine, *kinds: type) -> list[object]:
    return [event for event in engine.emitted if isinstance(event, kinds)]


class Turns:
    """How often the loop came round."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        turn = engine.expiry.turn

        def counted() -> float:
            self.count += 1
            return turn()

        engine.expiry.turn = counted  # type: ignore[method-assign]


async def test_a_lease_ends_at_its_instant(engine: Engine) -> None:
    """Though it was granted while the loop slept for longer."""
    async with engine.running():
        await engine.clock.elapse(1)
        engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", ttl=2.5))
        await engine.clock.elapse(2.4)
        assert engine.lease_admin.count() == (1, 0)
        await engine.clock.elapse(0.11)
        assert engine.lease_admin.count() == (0, 0)
        assert [event.reason for event in engine.emitted if isinstance(event, LeaseRevoked)] == ["expired"]


async def test_a_credential_expires_and_a_cooldown_lapses_at_their_instants(engine: Engine) -> None:
    """Health and streams hear of it then."""
    async with engine.running():
        engine.put(profile(A, expires_at=engine.clock.now() + 7), profile(B))
        engine.registry.replace_usage(("", B), Usage(cooldown_until=engine.clock.now() + 3))
        changes: list[float] = []
        began = engine.clock.steady()
        engine.registry.listeners.append(lambda _: changes.append(engine.clock.steady() - began))
        await engine.clock.elapse(20)
        assert [round(at, 2) for at in changes] == [3, 7]
        found = engine.registry.find("main", A)
        assert found is not None
        assert found[1].standing.state is State.EXPIRED


async def test_idle_loop_runs_every_five_seconds(engine: Engine) -> None:
    """For what nobody announces: a jump of the wall clock, a use to store."""
    turns = Turns(engine)
    async with engine.running():
        await engine.clock.elapse(60)
        assert 12 <= turns.count <= 14


async def test_many_leases_that_are_not_sooner_do_not_wake_it(engine: Engine) -> None:
    """Granting costs no turn of this loop."""
    turns = Turns(engine)
    async with engine.running():
        await engine.clock.elapse(0)
        before = turns.count
        for _ in range(100):
            engine.lease_service.acquire("main", ANY)
            await engine.clock.elapse(0)
        assert turns.count <= before + 1


async def test_overdue_keys_do_not_starve_others(engine: Engine) -> None:
    """Whatever is due, and however wrongly it says so, the loop sleeps for a moment, so that others have their turn."""
    engine.registry.tick = lambda: engine.clock.now() - 1  # type: ignore[method-assign]
    turns = Turns(engine)
    async with engine.running():
        for _ in range(20):
            await engine.clock.elapse(0)
        assert turns.count == 1
        await engine.clock.elapse(0.2)
        assert 2 <= turns.count <= 15


async def test_use_is_stored_within_seconds(engine: Engine) -> None:
    """So that turns outlive a crash."""
    async with engine.running():
        await engine.clock.elapse(0)
        engine.resolver.choose("main", "anthropic")
        used = engine.clock.now()
        await engine.clock.elapse(5.1)
        engine.store.crash()
        assert engine.store.load().usage == {("", A): Usage(last_used=used)}


@pytest.mark.parametrize(
    ("by", "state"),
    [(3600.0, State.EXPIRED), (-3600.0, State.EXPIRING), (-90_000.0, State.OK), (2.5, State.EXPIRING)],
)
async def test_a_jump_of_the_wall_clock_is_noticed_within_seconds(engine: Engine, by: float, state: State) -> None:
    """Told once; credentials follow the wall clock, leases do not, and their new instants are stored."""
    async with engine.running():
        await engine.clock.elapse(1)
        engine.put(profile(A, expires_at=engine.clock.now() + 1800), profile(B, expires_at=engine.clock.now() + 86400))
        lease = engine.lease_service.acquire("main", LeaseRequest(profile=B)).lease
        engine.clock.jump_wall(by)
        await engine.clock.elapse(6)
        (jump,) = told(engine, ClockJumped)
        assert isinstance(jump, ClockJumped)
        assert jump.seconds == pytest.approx(by)
        found = engine.registry.find("main", A)
        assert found is not None
        assert found[1].standing.state is state
        assert list(engine.lease_admin.active()) == [lease]
        await engine.clock.elapse(lease.expires_at - engine.clock.steady() - 0.01)
        assert engine.lease_admin.count() == (1, 0)
        await engine.clock.elapse(0.02)
        assert engine.lease_admin.count() == (0, 0)


async def test_a_clock_that_is_corrected_gently_is_no_jump(engine: Engine) -> None:
    """Less than two seconds are not worth a word."""
    async with engine.running():
        await engine.clock.elapse(1)
        for _ in range(3):
            engine.clock.jump_wall(0.5)
            await engine.clock.elapse(5)
        assert told(engine, ClockJumped) == []


async def test_store_fault_is_reported_once(engine: Engine) -> None:
    """Serving goes on; another fault is told again; when it writes again, nothing is missing."""
    async with engine.running():
        await engine.clock.elapse(1)
        for fault in ("disk full", "disk full", "read-only"):
            engine.store.broken = fault
            lease = engine.lease_service.acquire("main", ANY).lease
            await engine.clock.elapse(11)
        assert engine.store.load().leases == ()
        engine.store.broken = ""
        await engine.clock.elapse(6)
        assert told(engine, StoreFaulted, StoreRecovered) == [
            StoreFaulted(fault="disk full"), StoreFaulted(fault="read-only"), StoreRecovered()
        ]  # fmt: skip
        assert lease in engine.store.load().leases
        assert len(engine.store.load().leases) == 3


async def test_a_listener_that_fails_ends_nothing(engine: Engine) -> None:
    """P1: leases go on to end, whatever one who asked to hear of changes raises."""

    def fail(_: frozenset[tuple[str, str]]) -> None:
        raise RuntimeError("defect")

    engine.put(profile(A, expires_at=engine.clock.now() + 3))
    engine.registry.listeners.append(fail)
    running = asyncio.ensure_future(engine.expiry.run())
    await engine.clock.elapse(2.9)
    assert not running.done()
    await engine.clock.elapse(0.2)
    assert not running.done()
    assert not engine.registry.find("main", A)[1].standing.usable  # type: ignore[index]
    running.cancel()


async def test_loop_stops_when_cancelled(engine: Engine) -> None:
    """And leaves no sleeper behind."""
    running = asyncio.ensure_future(engine.expiry.run())
    await engine.clock.elapse(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.clock.sleepers == 0
