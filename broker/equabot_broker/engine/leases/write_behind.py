"""Write-behind for the state store: at once with little load, in shared transactions under load."""

import asyncio
from typing import Final

from equabot_broker.ports import StateStore

_TOGETHER: Final = 0.005
"""The shortest time in seconds between two transactions: changes in between share one."""


class WriteBehind:
    """Flushes the store before the answer if there is little load, otherwise once for many answers.

    A transaction costs as much as the rest of a grant.
    """

    __slots__ = ("_last", "_pending", "_store")

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._pending = False
        self._last = 0.0

    def soon(self) -> None:
        """Flushes now if the last flush was at least five milliseconds ago, otherwise at the end of that time."""
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
