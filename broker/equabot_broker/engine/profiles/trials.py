"""Trials: one request tests a rejected credential again, and the others wait for its result (ADR 18)."""

from collections.abc import Iterable
from typing import Final

from equabot_broker.domain.cooldowns import MINUTE

_LASTS: Final = MINUTE
"""Seconds during which other requests wait for the result of a trial."""

_Key = tuple[str, str]


class Trials:
    """The end of each wait (seconds since the epoch) by (agent, profile id), with agent "" for all agents."""

    def __init__(self) -> None:
        self._until: dict[_Key, float] = {}

    def has(self, agent: str, profile: str) -> bool:
        """Whether the agent itself has started a trial of the profile."""
        return (agent, profile) in self._until

    def until(self, agent: str, key: _Key) -> float:
        """The end of the agent's wait for the profile, or 0."""
        return max(self._until.get((whose, key[1]), 0.0) for whose in (agent, key[0]))

    def begin(self, agent: str, key: _Key, *, now: float) -> None:
        """The agent starts a trial. It then waits twice as long as the others, so that each agent gets a turn."""
        self._until[key] = now + _LASTS
        if agent != key[0]:
            self._until[agent, key[1]] = now + 2 * _LASTS

    def end(self, pairs: Iterable[_Key]) -> None:
        """Ends the waits of these agents for these profiles."""
        for pair in pairs:
            self._until.pop(pair, None)

    def end_all(self, profile: str) -> None:
        """Ends all waits for the profile."""
        self.end([pair for pair in self._until if pair[1] == profile])

    def clear(self) -> None:
        """Ends all waits."""
        self._until.clear()
