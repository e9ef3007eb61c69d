"""Notices to those who wait. Only names travel; whoever wakes up looks at what is true now.

A waiter that is slow misses nothing and costs nothing: what it has not taken yet is merged into one notice.
"""

import asyncio
from enum import Flag, auto


class LeaseChange(Flag):
    """What may have happened to a lease since its holder last looked."""

    NOTHING = 0
    ROTATED = auto()
    MOVED = auto()
    DUE = auto()
    ENDED = auto()


class Mailbox:
    """Merged news for one waiter."""

    __slots__ = ("_event", "_news", "reason")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._news = LeaseChange.NOTHING
        self.reason = ""

    def post(self, news: LeaseChange, reason: str = "") -> None:
        """Adds to what the waiter will find. `reason` goes with ENDED; the first one stays."""
        self._news |= news
        self.reason = self.reason or reason
        if self._news:
            self._event.set()

    async def take(self) -> LeaseChange:
        """Waits until there is news, and takes all of it."""
        await self._event.wait()
        self._event.clear()
        news, self._news = self._news, LeaseChange.NOTHING
        return news
