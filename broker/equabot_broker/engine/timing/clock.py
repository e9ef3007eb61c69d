"""The system clock. No other module of the engine reads the time or sleeps."""

import asyncio
import time
from typing import Final

from equabot_broker.ports import Clock

# CLOCK_BOOTTIME also counts while the machine is suspended. Without it, CLOCK_MONOTONIC is the best available clock.
_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_SLICE: Final = 15.0
"""The longest single sleep in seconds: timers of the event loop do not count while the machine is suspended."""


class SystemClock:
    """The time of the machine. Implements `ports.Clock`."""

    def now(self) -> float:
        """The wall clock, in seconds since the epoch. It may jump."""
        return time.time()

    def steady(self) -> float:
        """Seconds since the boot of the machine, including suspension. They continue across restarts of the process."""
        return time.clock_gettime(_STEADY)

    async def sleep(self, seconds: float) -> None:
        """Sleeps for steady seconds, never less, and at most 15 s more after a suspension.

        Zero or less yields to other tasks once.
        """
        end = self.steady() + seconds
        await asyncio.sleep(min(seconds, _SLICE))
        while (left := end - self.steady()) > 0:  # noqa: ASYNC110 - it waits for time, and nothing else
            await asyncio.sleep(min(left, _SLICE))


async def pause(clock: Clock, seconds: float, *, sooner: asyncio.Event) -> None:
    """Sleeps for steady seconds, or until the event is set."""
    async with asyncio.TaskGroup() as group:
        sleeping = group.create_task(clock.sleep(seconds))
        waking = group.create_task(sooner.wait())
        await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        waking.cancel()
