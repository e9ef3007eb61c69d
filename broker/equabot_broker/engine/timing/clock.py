"""The one clock. No other module reads the time or sleeps."""

import asyncio
import time
from typing import Final

from equabot_broker.ports import Clock

# Counts through suspension, unlike CLOCK_MONOTONIC, which is what is left where there is no such clock.
_STEADY: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

_SLICE: Final = 15.0
"""Seconds slept at a time: the event loop's timers do not count while the machine is suspended."""


class SystemClock:
    """The machine's time. Fulfils `ports.Clock`."""

    def now(self) -> float:
        """Wall clock, seconds since the epoch. It may jump."""
        return time.time()

    def steady(self) -> float:
        """Seconds since the machine was started. They count through suspension and go on across restarts of the process."""
        return time.clock_gettime(_STEADY)

    async def sleep(self, seconds: float) -> None:
        """Returns after so many steady seconds, never earlier, and at most 15 s late after a suspension.

        Zero and less give the others a turn and return.
        """
        end = self.steady() + seconds
        await asyncio.sleep(min(seconds, _SLICE))
        while (left := end - self.steady()) > 0:  # noqa: ASYNC110 - it waits for time, and nothing else
            await asyncio.sleep(min(left, _SLICE))


async def pause(clock: Clock, seconds: float, *, sooner: asyncio.Event) -> None:
    """Returns after so many steady seconds, or once the event is set."""
    async with asyncio.TaskGroup() as group:
        sleeping = group.create_task(clock.sleep(seconds))
        waking = group.create_task(sooner.wait())
        await asyncio.wait({sleeping, waking}, return_when=asyncio.FIRST_COMPLETED)
        sleeping.cancel()
        waking.cancel()
