"""The clock of the tests keeps the promises of the real one, and does what it is told."""

import asyncio

from equabot_broker.ports import Clock
from tests.fakes.clock import FakeClock


async def test_sleepers_wake_in_order_and_never_early() -> None:
    """Advancing wakes whoever's time has come, by time and then by who came first."""
    clock = FakeClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        for name, seconds in (("late", 3), ("first", 1), ("second", 1), ("none", 0)):
            tasks.create_task(sleeper(name, seconds))
        await clock.elapse(0)
        assert (woken, clock.sleepers) == (["none"], 3)
        clock.advance(0.5)
        await clock.elapse(0.4)
        assert woken == ["none"]
        clock.advance(0.2)
        assert clock.sleepers == 1
        await clock.elapse(5)
    assert woken == ["none", "first", "second", "late"]


async def test_a_loop_that_sleeps_runs_as_often_as_time_allows() -> None:
    """`elapse` goes from sleeper to sleeper; `advance` would wake it once."""
    clock = FakeClock(steady=0.0)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1.0)
            ticks.append(clock.steady())

    task = asyncio.ensure_future(tick())
    await clock.elapse(3.5)
    assert ticks == [1.0, 2.0, 3.0]
    assert clock.steady() == 3.5
    task.cancel()
    await asyncio.wait([task])
    assert clock.sleepers == 0


def test_the_wall_jumps_alone() -> None:
    """Somebody sets the clock; steady time does not notice."""
    fake = FakeClock(now=100.0, steady=7.0)
    clock: Clock = fake
    fake.jump_wall(-3600.0)
    assert (clock.now(), clock.steady()) == (-3500.0, 7.0)
    fake.advance(1.0)
    assert (clock.now(), clock.steady()) == (-3499.0, 8.0)
