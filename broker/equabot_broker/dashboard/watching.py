"""Reads the broker, its metrics and its audit log again and again, and puts what changed on the board."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from equabot_broker.dashboard.audit_tail import AuditTail
from equabot_broker.dashboard.board import Board
from equabot_broker.dashboard.broker_view import BrokerSilent, ReadBroker, view
from equabot_broker.dashboard.changes import BrokerChanges, NotedChange
from equabot_broker.dashboard.metrics_reading import MetricsAbsent, scrape
from equabot_broker.dashboard.traffic import EVERY, TrafficHistory

_WATCHED: Final = 1.0
"""Seconds between two readings of the broker while a page is open; without one it is `EVERY`."""
_SHARE: Final = 10
"""The dashboard asks at most for a tenth of the time: a broker that takes long is asked less often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardSources:
    """Where the page's contents come from. `metrics` is the address of the broker's listener."""

    read: ReadBroker
    metrics: tuple[str, int]
    audit: AuditTail
    now: Callable[[], float]


class PageFeed:
    """`run` never ends by itself."""

    def __init__(self, sources: DashboardSources, board: Board) -> None:
        self._sources = sources
        self._board = board
        self._changes = BrokerChanges()
        self._history = TrafficHistory()
        self._silent_since: float | None = None
        self._heard = False

    async def run(self) -> None:
        """Reads and publishes until it is cancelled."""
        loop = asyncio.get_running_loop()
        scraped = -EVERY
        while True:
            began = loop.time()
            self._board.arrived.clear()
            if began - scraped >= EVERY:
                scraped = began
                await self._read_metrics()
            await self._read_broker()
            self._board.publish("audit", await asyncio.to_thread(self._sources.audit.look))
            pause = max(_WATCHED if self._board.watched else EVERY, _SHARE * (loop.time() - began))
            try:
                async with asyncio.timeout(pause):
                    await self._board.arrived.wait()
            except TimeoutError:
                continue

    async def _read_broker(self) -> None:
        now = self._sources.now
        try:
            reading = await asyncio.to_thread(self._sources.read)
        except BrokerSilent as silent:
            if self._silent_since is None:
                self._silent_since = round(now(), 1)
                self._note("bad", "stopped answering" if self._heard else "does not answer")
            self._board.publish("status", {"ok": False, "since": self._silent_since, "words": str(silent)})
        else:
            if self._silent_since is not None:
                self._silent_since = None
                self._note("good", "answers again" if self._heard else "answers")
            self._heard = True
            self._changes.hear(reading, now=now())
            self._board.publish("broker", view(reading, now=now()))
            self._board.publish("status", {"ok": True, "since": None, "words": ""})
        self._board.publish("changes", self._changes.view())

    def _note(self, kind: str, text: str) -> None:
        self._changes.note(NotedChange(kind=kind, subject="broker", text=text), now=self._sources.now())

    async def _read_metrics(self) -> None:
        now = round(self._sources.now(), 1)
        try:
            self._history.add(now, await scrape(*self._sources.metrics))
        except MetricsAbsent as absent:
            self._board.publish("traffic", {"ok": False, "now": now, "words": str(absent), **self._history.view()})
        else:
            self._board.publish("traffic", {"ok": True, "now": now, "words": "", **self._history.view()})
