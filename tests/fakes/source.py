"""A source whose contents a test decides."""

import asyncio
from collections.abc import AsyncGenerator

from equabot_broker.domain.material import SourceEvent, SourceUnavailable, UnitsListed


class FakeSource:
    """Fulfils `ports.Source`. What is pushed is delivered, in order.

    `reread` delivers the last `UnitsListed` or `SourceUnavailable` again, and `rereads` counts; while `deaf`, it only counts.
    """

    def __init__(self, name: str = "fake", *events: SourceEvent) -> None:
        self._name = name
        self._queue: asyncio.Queue[SourceEvent] = asyncio.Queue()
        self._whole: SourceEvent = UnitsListed(())
        self.rereads = 0
        self.deaf = False
        for event in events:
            self.push(event)

    @property
    def name(self) -> str:
        return self._name

    def push(self, event: SourceEvent) -> None:
        """Delivers an event."""
        if isinstance(event, UnitsListed | SourceUnavailable):
            self._whole = event
        self._queue.put_nowait(event)

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """What was pushed, forever."""
        while True:
            yield await self._queue.get()

    def reread(self) -> None:
        """Counts, and delivers the whole again."""
        self.rereads += 1
        if not self.deaf:
            self._queue.put_nowait(self._whole)
