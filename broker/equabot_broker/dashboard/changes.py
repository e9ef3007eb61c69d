"""What changed at the broker while the dashboard ran: the differences between its answers."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from equabot_broker.dashboard.broker_view import WORST_FIRST, BrokerReading
from equabot_broker.parsing.untrusted_json import Json
from equabot_client import Profile
from equabot_client.admin import LeaseSummary

_KEPT: Final = 50
"""Changes."""
_TOGETHER: Final = 60.0
"""Seconds. Leases of one agent and profile that change within them are one entry: a busy agent hides no other change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedChange:
    """One entry. `kind` is `good`, `bad`, `warn` or `plain`. `leases` counts those that `text` is about, 0 for none."""

    kind: str
    subject: str
    text: str
    leases: int = 0
    at: float = 0.0

    def same(self, other: "NotedChange") -> bool:
        """Whether both are about leases of one agent and profile, and say the same of them."""
        mine, others = ((one.kind, one.subject, one.text) for one in (self, other))
        return bool(self.leases and other.leases) and mine == others

    def view(self) -> Json:
        """For the page."""
        counted = f"{self.leases:,} lease{'s' if self.leases > 1 else ''} {self.text}" if self.leases else self.text
        return {"at": round(self.at, 1), "kind": self.kind, "subject": self.subject, "text": counted}


class BrokerChanges:
    """The last changes, newest first."""

    def __init__(self) -> None:
        self._before: BrokerReading | None = None
        self._noted: deque[NotedChange] = deque(maxlen=_KEPT)

    def hear(self, reading: BrokerReading, *, now: float) -> None:
        """The next answer."""
        before, self._before = self._before, reading
        if before is not None:
            for compare in (_of_profiles, _of_leases, _of_agents):
                for change in compare(before, reading):
                    self.note(change, now=now)

    def note(self, change: NotedChange, *, now: float) -> None:
        """One more."""
        known = next((one for one in self._noted if one.same(change) and now - one.at <= _TOGETHER), None)
        if known is not None:
            self._noted.remove(known)
            change = replace(change, leases=known.leases + change.leases)
        self._noted.appendleft(replace(change, at=now))

    def view(self) -> Json:
        """For the page."""
        return {"changes": [change.view() for change in self._noted]}


def _by_id(reading: BrokerReading) -> Mapping[str, Profile]:
    """Agents can see a profile in different states: the worst counts."""
    found: dict[str, Profile] = {}
    for profiles in reading.profiles.values():
        for one in profiles:
            if one.id not in found or _severity(one) < _severity(found[one.id]):
                found[one.id] = one
    return found


def _severity(profile: Profile) -> int:
    return WORST_FIRST.index(profile.state) if profile.state in WORST_FIRST else 0


def _of_profiles(before: BrokerReading, after: BrokerReading) -> Iterable[NotedChange]:
    was, now = _by_id(before), _by_id(after)
    for name in sorted(was.keys() - now.keys()):
        yield NotedChange(kind="plain", subject=name, text="was removed")
    for name in sorted(now.keys() - was.keys()):
        yield NotedChange(kind="plain", subject=name, text=f"is new: {now[name].state}")
    for name in sorted(was.keys() & now.keys()):
        if now[name].version != was[name].version:
            yield NotedChange(kind="good", subject=name, text="was rotated")
        if now[name].state != was[name].state:
            kind = {"ok": "good", "expiring": "warn"}.get(now[name].state, "bad")
            yield NotedChange(kind=kind, subject=name, text=f"{was[name].state} → {now[name].state}")


def _of_leases(before: BrokerReading, after: BrokerReading) -> Iterable[NotedChange]:
    was, now = ({lease.id: lease for lease in reading.leases} for reading in (before, after))
    yield from _counted("warn", "ended", [was[name] for name in was.keys() - now.keys()])
    yield from _counted("plain", "granted", [now[name] for name in now.keys() - was.keys()])


def _counted(kind: str, verb: str, leases: Iterable[LeaseSummary]) -> Iterable[NotedChange]:
    counts: dict[tuple[str, str], int] = {}
    for lease in leases:
        counts[lease.agent, lease.profile] = counts.get((lease.agent, lease.profile), 0) + 1
    for (agent, profile), count in sorted(counts.items()):
        yield NotedChange(kind=kind, subject=f"agent {agent}:", text=f"of {profile} {verb}", leases=count)


def _of_agents(before: BrokerReading, after: BrokerReading) -> Iterable[NotedChange]:
    was = {agent.agent: agent.suspended for agent in before.agents}
    for agent in after.agents:
        if agent.suspended != was.get(agent.agent, False):
            kind, text = ("bad", "was suspended") if agent.suspended else ("good", "was resumed")
            yield NotedChange(kind=kind, subject=f"agent {agent.agent}", text=text)
