"""The suspended agents. Every grant, renewal and request through the gateway is checked here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from equabot_broker.domain.errors import AgentSuspended
from equabot_broker.domain.suspension import Suspension


def refusal(agent: str) -> AgentSuspended:
    """The error for a suspended agent."""
    message = f"agent {agent!r} is suspended: an operator resumes it with `equabot agent resume {agent}`"
    return AgentSuspended(message, metadata={"agent": agent})


class Suspensions:
    """The suspended agents, configured or not. `listeners` get the name of each agent that was suspended or resumed."""

    def __init__(self, stored: Mapping[str, Suspension] | None = None) -> None:
        self._suspended = dict(stored or {})
        self._agents_by_token = self._index()
        self.listeners: list[Callable[[str], None]] = []

    @property
    def all(self) -> Mapping[str, Suspension]:
        """All suspensions by agent."""
        return MappingProxyType(self._suspended)

    def of(self, agent: str) -> Suspension | None:
        """The agent's suspension, or None."""
        return self._suspended.get(agent)

    def check(self, agent: str) -> None:
        """Raises AgentSuspended for a suspended agent."""
        if agent in self._suspended:
            raise refusal(agent)

    def check_token(self, digest: bytes) -> None:
        """Raises AgentSuspended if a current suspension ended the lease of this token."""
        agent = self._agents_by_token.get(digest)
        if agent is not None:
            self.check(agent)

    def put(self, agent: str, suspension: Suspension | None) -> None:
        """Suspends the agent at once. None resumes it."""
        if suspension is None:
            self._suspended.pop(agent, None)
        else:
            self._suspended[agent] = suspension
        self._agents_by_token = self._index()
        for listener in self.listeners:
            listener(agent)

    def _index(self) -> dict[bytes, str]:
        return {token: agent for agent, suspension in self._suspended.items() for token in suspension.tokens}
