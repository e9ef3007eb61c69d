"""Notices for the holders of streams. A notice says only what kind of change there was: its reader looks at the present state.

A slow reader misses nothing and uses no more memory: what it has not taken yet is merged into one notice.
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
    """Merged changes for one reader."""

    __slots__ = ("_change", "_event", "reason")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._change = LeaseChange.NOTHING
        self.reason = ""

    def post(self, change: LeaseChange, reason: str = "") -> None:
        """Adds to what the waiter will find. `reason` goes with ENDED; the first one stays."""
        self._change |= change
        self.reason = self.reason or reason
        if self._change:
            self._event.set()

    async def take(self) -> LeaseChange:
        """Waits until there is a change, and takes all that have come."""
        await self._event.wait()
        self._event.clear()
        change, self._change = self._change, LeaseChange.NOTHING
        return change
