"""When each key is due. One instant a key; a later call replaces it, and keys that are over use no memory."""

import heapq
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from equabot_broker.domain.credentials import NEVER

K = TypeVar("K", str, tuple[str, str])

_SLACK: Final = 1024


class Deadlines(Generic[K]):
    """A heap of instants, on whichever clock its owner keeps. `wake` is called when something is due sooner than all before."""

    __slots__ = ("_at", "_heap", "wake")

    def __init__(self) -> None:
        self._heap: list[tuple[float, K]] = []
        self._at: dict[K, float] = {}
        self.wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        """How much memory it takes, in entries: in proportion to the keys, however often they came, moved and went."""
        return len(self._heap)

    def plan(self, key: K, at: float) -> None:
        """The key is due at this instant, and no longer at the one planned before. NEVER forgets the key."""
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
        """When the key is due; NEVER where nothing is planned."""
        return self._at.get(key, NEVER)

    def forget(self, key: K) -> None:
        """The key is not due any more."""
        self._at.pop(key, None)
        self._shrink()

    def clear(self) -> None:
        """Nothing is due any more."""
        self._heap.clear()
        self._at.clear()

    def next(self) -> float:
        """When something is due; NEVER where nothing is."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else NEVER

    def due(self, now: float) -> list[K]:
        """Takes the keys whose instant has come, soonest first."""
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
