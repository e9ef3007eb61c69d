"""The evidence of single agents about shared profiles, until it lapses."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.cooldowns import shifted
from equabot_broker.domain.evidence import Evidence
from equabot_broker.engine.timing.deadlines import Deadlines

AgentProfile = tuple[str, str]
"""An agent and the id of a shared profile."""

_NONE: Final[Mapping[str, Evidence]] = MappingProxyType({})


class AgentEvidence:
    """One evidence for each pair of agent and profile. Instants are in seconds since the epoch."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Evidence]] = {}
        self._lapses: Deadlines[AgentProfile] = Deadlines()

    def of(self, profile: str) -> Mapping[str, Evidence]:
        """The evidence about the profile by agent."""
        return self._of.get(profile, _NONE)

    def put(self, agent: str, profile: str, evidence: Evidence, *, now: float) -> None:
        """Replaces the agent's evidence. Evidence that has lapsed is removed."""
        at = evidence.lapses_at()
        if at <= now:
            self.forget(agent, profile)
            return
        self._of.setdefault(profile, {})[agent] = evidence
        self._lapses.plan((agent, profile), at)

    def forget(self, agent: str, profile: str) -> None:
        """Removes the agent's evidence about the profile."""
        found = self._of.get(profile, {})
        found.pop(agent, None)
        if not found:
            self._of.pop(profile, None)
        self._lapses.forget((agent, profile))

    def forget_all(self, profile: str) -> list[AgentProfile]:
        """Removes all evidence about the profile. Returns the affected pairs."""
        pairs = [(agent, profile) for agent in self.of(profile)]
        for pair in pairs:
            self.forget(*pair)
        return pairs

    def lapse(self, now: float) -> list[AgentProfile]:
        """Removes lapsed evidence. Returns the affected pairs."""
        pairs = self._lapses.due(now)
        for pair in pairs:
            self.forget(*pair)
        return pairs

    def next(self) -> float:
        """The instant at which the next evidence lapses (seconds since the epoch)."""
        return self._lapses.next()

    def shift(self, by: float, *, now: float) -> None:
        """The wall clock moved `by` seconds to `now`: remaining times stay the same."""
        for profile, found in list(self._of.items()):
            for agent, evidence in list(found.items()):
                moved = replace(evidence, usage=shifted(evidence.usage, by, now=now), doubted_until=evidence.doubted_until + by)
                self.put(agent, profile, moved, now=now)
