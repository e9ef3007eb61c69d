"""Storing soon: at once while little happens, together with what else comes within a few milliseconds under load."""

import asyncio
from typing import Final

from equabot_broker.ports import StateStore

_TOGETHER: Final = 0.005
"""Seconds between two transactions, at least: what comes in between shares one."""


class WriteBehind:
    """Flushes the store before the answer where little happens, and behind many answers at once under load: a transaction costs
    as much as the rest of a grant."""

    __slots__ = ("_last", "_pending", "_store")

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._pending = False
        self._last = 0.0

    def soon(self) -> None:
        """Flushes, if the last flush was five milliseconds ago; else makes the event loop do so once it was."""
        if self._pending:
            return
        loop = asyncio.get_running_loop()
        at = self._last + _TOGETHER
        if at <= loop.time():
            self._flush(loop)
        else:
            self._pending = True
            loop.call_at(at, self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pending = False
        self._last = loop.time()
        self._store.flush()
