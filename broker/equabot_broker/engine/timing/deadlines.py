"""A queue of deadlines with one instant for each key. A later call replaces the instant."""

import heapq
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from equabot_broker.domain.credentials import NEVER

K = TypeVar("K", str, tuple[str, str])

_SLACK: Final = 1024


class Deadlines(Generic[K]):
    """A heap of instants on the clock of its owner. `wake` is called for a deadline that is sooner than all others."""

    __slots__ = ("_at", "_heap", "wake")

    def __init__(self) -> None:
        self._heap: list[tuple[float, K]] = []
        self._at: dict[K, float] = {}
        self.wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """The number of entries in memory. It stays in proportion to the number of keys."""
        return len(self._heap)

    def plan(self, key: K, at: float) -> None:
        """Sets the instant of the key. NEVER removes the key."""
        if at == NEVER:
            self.forget(key)
            return
        if self._at.get(key) == at:
            return
        sooner = at < self.next()
        self._at[key] = at
        heapq.heappush(self._heap, (at, key))
        self._shrink()
        if sooner:
            self.wake()

    def at(self, key: K) -> float:
        """The instant of the key, or NEVER."""
        return self._at.get(key, NEVER)

    def forget(self, key: K) -> None:
        """Removes the key."""
        self._at.pop(key, None)
        self._shrink()

    def clear(self) -> None:
        """Removes all keys."""
        self._heap.clear()
        self._at.clear()

    def next(self) -> float:
        """The soonest instant, or NEVER."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else NEVER

    def due(self, now: float) -> list[K]:
        """Removes and returns the keys that are due, soonest first."""
        found: list[K] = []
        while self.next() <= now and self._heap:
            key = heapq.heappop(self._heap)[1]
            del self._at[key]
            found.append(key)
        return found

    def _shrink(self) -> None:
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(when, which) for which, when in self._at.items()]
            heapq.heapify(self._heap)
