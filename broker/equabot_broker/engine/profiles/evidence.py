"""Failures that single agents have met with shared profiles, for as long as they count."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.cooldowns import shifted
from equabot_broker.domain.evidence import Evidence
from equabot_broker.engine.timing.deadlines import Deadlines

AgentProfile = tuple[str, str]
"""An agent, and the id of a shared profile."""

_NONE: Final[Mapping[str, Evidence]] = MappingProxyType({})


class AgentEvidence:
    """At most one a pair of agent and profile, and each of them ends. Instants in seconds since the epoch."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Evidence]] = {}
        self._lapses: Deadlines[AgentProfile] = Deadlines()

    def of(self, profile: str) -> Mapping[str, Evidence]:
        """By agent."""
        return self._of.get(profile, _NONE)

    def put(self, agent: str, profile: str, evidence: Evidence, *, now: float) -> None:
        """Replaces what the agent has met. Evidence that no longer counts is forgotten."""
        at = evidence.lapses_at()
        if at <= now:
            self.forget(agent, profile)
            return
        self._of.setdefault(profile, {})[agent] = evidence
        self._lapses.plan((agent, profile), at)

    def forget(self, agent: str, profile: str) -> None:
        """The agent has met nothing with the profile."""
        found = self._of.get(profile, {})
        found.pop(agent, None)
        if not found:
            self._of.pop(profile, None)
        self._lapses.forget((agent, profile))

    def forget_all(self, profile: str) -> list[AgentProfile]:
        """No agent has met anything with the profile. Returns whose that was."""
        pairs = [(agent, profile) for agent in self.of(profile)]
        for pair in pairs:
            self.forget(*pair)
        return pairs

    def lapse(self, now: float) -> list[AgentProfile]:
        """Forgets what no longer counts. Returns whose that was."""
        pairs = self._lapses.due(now)
        for pair in pairs:
            self.forget(*pair)
        return pairs

    def next(self) -> float:
        """When the next evidence ends (seconds since the epoch)."""
        return self._lapses.next()

    def shift(self, by: float, *, now: float) -> None:
        """The wall clock moved `by` seconds to `now`: what is under way lasts as long as before."""
        for profile, found in list(self._of.items()):
            for agent, evidence in list(found.items()):
                moved = replace(evidence, usage=shifted(evidence.usage, by, now=now), doubted_until=evidence.doubted_until + by)
                self.put(agent, profile, moved, now=now)
