"""Trials: a credential that was refused a while ago is given to one request, and the others wait for the answer (ADR 18)."""

from collections.abc import Iterable
from typing import Final

from equabot_broker.domain.cooldowns import MINUTE

_LASTS: Final = MINUTE
"""Seconds for which a request that tries a refused credential again keeps the next one from doing so."""

_Key = tuple[str, str]


class Trials:
    """Until when (seconds since the epoch) a profile is not tried again, by (agent, profile id); agent "" for every agent."""

    def __init__(self) -> None:
        self._until: dict[_Key, float] = {}

    def has(self, agent: str, profile: str) -> bool:
        """Whether the agent itself has tried the profile."""
        return (agent, profile) in self._until

    def until(self, agent: str, key: _Key) -> float:
        """Until when the agent waits with the profile; 0: it does not."""
        return max(self._until.get((whose, key[1]), 0.0) for whose in (agent, key[0]))

    def begin(self, agent: str, key: _Key, *, now: float) -> None:
        """The agent tries the profile. It waits for twice as long as the others, so that no agent can take every turn."""
        self._until[key] = now + _LASTS
        if agent != key[0]:
            self._until[agent, key[1]] = now + 2 * _LASTS

    def end(self, pairs: Iterable[_Key]) -> None:
        """These agents wait no longer with these profiles."""
        for pair in pairs:
            self._until.pop(pair, None)

    def end_all(self, profile: str) -> None:
        """No agent waits with the profile any longer."""
        self.end([pair for pair in self._until if pair[1] == profile])

    def clear(self) -> None:
        """No agent waits with any profile."""
        self._until.clear()
