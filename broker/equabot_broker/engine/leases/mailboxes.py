"""Mailboxes of streams. A change has only a kind: the reader gets the current state itself.

Unread changes are merged. A slow reader therefore misses nothing, and needs no more memory.
"""

import asyncio
from enum import Flag, auto


class LeaseChange(Flag):
    """The kinds of changes of a lease since the last read."""

    NOTHING = 0
    ROTATED = auto()
    MOVED = auto()
    DUE = auto()
    ENDED = auto()


class Mailbox:
    """Merged changes for one reader."""

    __slots__ = ("_change", "_event", "reason")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._change = LeaseChange.NOTHING
        self.reason = ""

    def post(self, change: LeaseChange, reason: str = "") -> None:
        """Adds a change. `reason` belongs to ENDED; the first one is kept."""
        self._change |= change
        self.reason = self.reason or reason
        if self._change:
            self._event.set()

    async def take(self) -> LeaseChange:
        """Waits for a change, and returns all unread changes."""
        await self._event.wait()
        self._event.clear()
        change, self._change = self._change, LeaseChange.NOTHING
        return change
