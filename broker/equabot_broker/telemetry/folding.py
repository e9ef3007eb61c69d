"""Sums repeated refusals, because an agent or a stranger can cause any number of them (ADR 21).

For each combination of kind, caller and reason, the first ten events pass immediately, and one more for each minute without an
event. Further events wait, and one `Summed` replaces them: after ten seconds, and then at intervals that double up to five
minutes. Events that are not `summed` pass unchanged.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from equabot_broker.domain.instants import rfc3339
from equabot_broker.telemetry.events import Event, Sink, Summed, emit_to

AT_ONCE: Final = 10
"""Events of one combination that pass one by one."""
_ONE_MORE_EVERY: Final = 60.0
_FIRST_WINDOW: Final = 10.0
_LONGEST_WINDOW: Final = 300.0
_CHECK_EVERY: Final = 1.0
_MOST: Final = 512
"""Combinations that are counted. The events of further callers are summed as `OTHERS`."""
OTHERS: Final = "(others)"


class _Key(NamedTuple):
    kind: str
    caller: str
    reason: str


@dataclass(slots=True)
class _Run:
    """The events of one combination. `left` more may pass, as of the steady instant `at`. `count` events wait since `began`."""

    left: float
    at: float
    window: float = _FIRST_WINDOW
    count: int = 0
    began: float = 0.0
    first: float = 0.0
    last: float = 0.0
    shared: Mapping[str, str] = field(default_factory=dict)

    def refill(self, now: float) -> None:
        if not self.count:
            self.left = min(self.left + (now - self.at) / _ONE_MORE_EVERY, float(AT_ONCE))
        self.at = now

    def is_due(self, now: float) -> bool:
        return bool(self.count) and now - self.began >= self.window

    def keep(self, event: Event, *, now: float, wall: float) -> None:
        about = {name: str(getattr(event, name, "")) for name in ("provider", "profile")}
        if not self.count:
            self.began, self.first, self.shared = now, wall, about
        self.count += 1
        self.last = wall
        self.shared = {name: value if about[name] == value else "" for name, value in self.shared.items()}


class RefusalFolding:
    """A sink for `Events`, in front of the log and the audit log. `now` and `steady` are the functions of a clock."""

    def __init__(self, *sinks: Sink, now: Callable[[], float], steady: Callable[[], float]) -> None:
        self.sinks = list(sinks)
        self._now = now
        self._steady = steady
        self._runs: dict[_Key, _Run] = {}
        self._waiting = asyncio.Event()

    def record(self, event: Event) -> None:
        """Passes the event to the sinks, or counts it for a sum."""
        if not event.summed:
            self._emit(event)
            return
        now = self._steady()
        key, run = self._run(event, now)
        if run.is_due(now):
            self._emit_sum(key, run, now)
        run.refill(now)
        if not run.count and run.left >= 1.0:
            run.left -= 1.0
            self._emit(event)
            return
        run.keep(event, now=now, wall=self._now())
        self._waiting.set()

    def emit_due(self) -> None:
        """Passes the sums that are due to the sinks, and removes the combinations that have no recent event."""
        now = self._steady()
        for key, run in list(self._runs.items()):
            if run.is_due(now):
                self._emit_sum(key, run, now)
        self._remove_idle(now)

    async def run(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Passes sums to the sinks when they are due. Does not return."""
        while True:
            await self._waiting.wait()
            await sleep(_CHECK_EVERY)
            self.emit_due()
            if not any(run.count for run in self._runs.values()):
                self._waiting.clear()

    def close(self) -> None:
        """Passes all sums to the sinks."""
        now = self._steady()
        for key, run in self._runs.items():
            if run.count:
                self._emit_sum(key, run, now)

    def _run(self, event: Event, now: float) -> tuple[_Key, _Run]:
        reason = str(getattr(event, "reason", "") or getattr(event, "outcome", ""))
        key = _Key(event.audit_kind, str(getattr(event, "agent", "")), reason)
        if key not in self._runs and len(self._runs) >= _MOST:
            self._remove_idle(now)
            if len(self._runs) >= _MOST:
                key = _Key(key.kind, OTHERS, "")
        return key, self._runs.setdefault(key, _Run(float(AT_ONCE), now))

    def _remove_idle(self, now: float) -> None:
        for key, run in list(self._runs.items()):
            run.refill(now)
            if not run.count and run.left >= AT_ONCE:
                del self._runs[key]

    def _emit_sum(self, key: _Key, run: _Run, now: float) -> None:
        summed = Summed(
            of=key.kind,
            agent=key.caller,
            reason=key.reason,
            provider=run.shared["provider"],
            profile=run.shared["profile"],
            count=run.count,
            seconds=now - run.began,
            first=rfc3339(run.first),
            last=rfc3339(run.last),
        )
        run.count = 0
        run.window = min(2 * run.window, _LONGEST_WINDOW)
        self._emit(summed)

    def _emit(self, event: Event) -> None:
        emit_to(self.sinks, event)
