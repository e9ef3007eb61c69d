"""Limits how often a source reads. Failed readings are retried with growing delays, and reading takes a bounded share of the
time."""

import random
from collections.abc import Iterator
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.ports import Clock

_WORK_AT_ONCE: Final = 1.0
_WORK_MOST: Final = 1.5
_WORK_SHARE: Final = 0.25
"""Reading may take this many seconds at once, and this share of the time in the long run."""


class Retries:
    """The time of the next retry. The delay grows with each retry, and starts from the base for a new name."""

    def __init__(self, clock: Clock, *, base: float, cap: float) -> None:
        self._clock = clock
        self._bounds = (base, cap)
        self._concerned: frozenset[str] = frozenset()
        self._waits: Iterator[float] = iter(())
        self._at = 0.0

    def concern(self, names: frozenset[str]) -> None:
        """Starts or continues retries of these names. Without names, retries end."""
        now = self._clock.steady()
        if names - self._concerned:
            base, cap = self._bounds
            self._waits = delays(base=base, cap=cap, rng=random.random)
            self._at = now + next(self._waits)
        elif names and self._at <= now:
            self._at = now + next(self._waits)
        self._concerned = names

    def left(self) -> float:
        """Seconds until the retry is due. Zero or less: it is due now."""
        return self._at - self._clock.steady()


class WorkShare:
    """How long the reader has worked recently. As a context manager, it counts the time inside."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done = 0.0
        self._at = self._began = clock.steady()

    def __enter__(self) -> None:
        self._began = self._clock.steady()

    def __exit__(self, *_: object) -> None:
        now = self._clock.steady()
        idle = self._began - self._at
        # The sum is bounded, because a process that was stopped for an hour did not work for an hour.
        self._done = min(max(0.0, self._done - idle * _WORK_SHARE) + now - self._began, _WORK_MOST)
        self._at = now

    async def rest(self) -> None:
        """Waits until the reader may work again."""
        idle = self._clock.steady() - self._at
        over = self._done - _WORK_AT_ONCE - idle * _WORK_SHARE
        if over > 0:
            await self._clock.sleep(over / _WORK_SHARE)
