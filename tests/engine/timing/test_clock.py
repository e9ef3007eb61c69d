"""The system clock: honest about wall time, steady across processes, and never early."""

import asyncio
import subprocess
import sys
import time

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.ports import Clock


def test_it_is_the_clock_the_engine_asks_for() -> None:
    """SystemClock fulfils ports.Clock; the assignment is what mypy checks."""
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 1


def test_steady_time_goes_on_in_another_process() -> None:
    """A lease stored by one process means the same instant to the next one."""
    before = SystemClock().steady()
    code = "from equabot_broker.engine.timing.clock import SystemClock; print(repr(SystemClock().steady()))"
    there = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert before < there < SystemClock().steady()


async def test_sleep_is_never_early() -> None:
    """Whoever sleeps until a deadline finds it passed."""
    clock = SystemClock()
    for seconds in (0.0001, 0.001, 0.01):
        end = clock.steady() + seconds
        await clock.sleep(seconds)
        assert clock.steady() >= end


async def test_sleeping_for_nothing_still_gives_others_a_turn() -> None:
    """A loop that sleeps zero or less does not starve the rest."""
    turns: list[str] = []
    asyncio.get_running_loop().call_soon(turns.append, "other")
    await SystemClock().sleep(0)
    assert turns == ["other"]
    await SystemClock().sleep(-5)


async def test_sleep_can_be_cancelled() -> None:
    """Draining does not wait for sleepers."""
    task = asyncio.ensure_future(SystemClock().sleep(3600))
    await SystemClock().sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    assert task in done
    assert task.cancelled()
