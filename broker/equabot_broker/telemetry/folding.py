"""Refusals are recorded one by one, and then as sums: an agent, or a stranger, can cause any number of them.

Of each kind, caller and reason the first ten go on at once, and one more for each calm minute. The others wait, and go on as
one `Summed`: after ten seconds, and at longer intervals (at most five minutes) while they keep coming. Every other event goes
on as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from equabot_broker.domain.instants import rfc3339
from equabot_broker.telemetry.events import Event, Sink, Summed, emit_to

AT_ONCE: Final = 10
"""Events of one kind, caller and reason that go on one by one."""
_ONE_MORE_EVERY: Final = 60.0
_FIRST_WINDOW: Final = 10.0
_LONGEST_WINDOW: Final = 300.0
_LOOK_EVERY: Final = 1.0
_MOST: Final = 512
"""Combinations of kind, caller and reason that are counted apart. Further callers are summed as `OTHERS`."""
OTHERS: Final = "(others)"


class _Key(NamedTuple):
    kind: str
    caller: str
    reason: str


@dataclass(slots=True)
class _Run:
    """Events of one key. `left` may go on at once, as of the steady instant `at`; `count` wait since `began`."""

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


class Folding:
    """A sink for `Events`, before those that keep what they hear. `now` and `steady` tell the time, as a clock does."""

    def __init__(self, *sinks: Sink, now: Callable[[], float], steady: Callable[[], float]) -> None:
        self.sinks = list(sinks)
        self._now = now
        self._steady = steady
        self._runs: dict[_Key, _Run] = {}
        self._waiting = asyncio.Event()

    def record(self, event: Event) -> None:
        """Passes the event on, or keeps it for the sum."""
        if not event.summed:
            self._tell(event)
            return
        now = self._steady()
        key, run = self._run(event, now)
        if run.is_due(now):
            self._sum_up(key, run, now)
        run.refill(now)
        if not run.count and run.left >= 1.0:
            run.left -= 1.0
            self._tell(event)
            return
        run.keep(event, now=now, wall=self._now())
        self._waiting.set()

    def tell_due(self) -> None:
        """Passes on the sums whose time has come, and forgets who is calm again."""
        now = self._steady()
        for key, run in list(self._runs.items()):
            if run.is_due(now):
                self._sum_up(key, run, now)
        self._forget_calm(now)

    async def run(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Passes on sums in time, forever."""
        while True:
            await self._waiting.wait()
            await sleep(_LOOK_EVERY)
            self.tell_due()
            if not any(run.count for run in self._runs.values()):
                self._waiting.clear()

    def close(self) -> None:
        """Passes on everything that waits."""
        now = self._steady()
        for key, run in self._runs.items():
            if run.count:
                self._sum_up(key, run, now)

    def _run(self, event: Event, now: float) -> tuple[_Key, _Run]:
        reason = str(getattr(event, "reason", "") or getattr(event, "outcome", ""))
        key = _Key(event.audit_kind, str(getattr(event, "agent", "")), reason)
        if key not in self._runs and len(self._runs) >= _MOST:
            self._forget_calm(now)
            if len(self._runs) >= _MOST:
                key = _Key(key.kind, OTHERS, "")
        return key, self._runs.setdefault(key, _Run(float(AT_ONCE), now))

    def _forget_calm(self, now: float) -> None:
        for key, run in list(self._runs.items()):
            run.refill(now)
            if not run.count and run.left >= AT_ONCE:
                del self._runs[key]

    def _sum_up(self, key: _Key, run: _Run, now: float) -> None:
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
        self._tell(summed)

    def _tell(self, event: Event) -> None:
        emit_to(self.sinks, event)
