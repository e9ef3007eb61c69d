"""Time that stands still until a test moves it."""

import asyncio
import heapq
import itertools


class FakeClock:
    """Fulfils `ports.Clock`. `now` and `steady` are apart, so that confusing them shows."""

    def __init__(self, *, now: float = 1_800_000_000.0, steady: float = 5_000.0) -> None:
        self._now = now
        self._steady = steady
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        """The wall clock."""
        return self._now

    def steady(self) -> float:
        """The clock that never jumps."""
        return self._steady

    async def sleep(self, seconds: float) -> None:
        """Returns once the clock was advanced past so many steady seconds; at once, but after a turn, for none."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waking = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._steady + seconds, next(self._order), waking))
        await waking

    @property
    def sleepers(self) -> int:
        """How many sleep now."""
        return sum(not waking.done() for _, _, waking in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Both clocks go on, at once. Whoever's time has come runs as soon as the caller awaits anything."""
        self._now += seconds
        self._steady += seconds
        while self._sleepers and self._sleepers[0][0] <= self._steady:
            _, _, waking = heapq.heappop(self._sleepers)
            if not waking.done():
                waking.set_result(None)

    async def elapse(self, seconds: float) -> None:
        """Both clocks go on, from sleeper to sleeper, each of which runs before time goes further: a loop that sleeps ten times
        a second runs ten times. Only for what needs nothing but turns of the event loop."""
        end = self._steady + seconds
        await self._turns()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.advance(max(self._sleepers[0][0] - self._steady, 0.0))
            await self._turns()
        self.advance(end - self._steady)
        await self._turns()

    def jump_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock; steady time does not notice."""
        self._now += seconds

    @staticmethod
    async def _turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)


class HurriedClock(FakeClock):
    """Whoever sleeps makes time go on."""

    async def sleep(self, seconds: float) -> None:
        """Returns after a turn."""
        self.advance(max(seconds, 0.0))
        await asyncio.sleep(0)
