"""Limits of each agent: the number of its leases and the rate of its requests."""

from equabot_broker.domain.credentials import span
from equabot_broker.domain.errors import LeaseLimit
from equabot_broker.domain.policies import AgentPolicy, Allowance
from equabot_broker.engine.leases.table import LeaseTable


class Quotas:
    """Checks the number of leases in the lease table, and counts requests."""

    def __init__(self, lease_table: LeaseTable) -> None:
        self._lease_table = lease_table
        self._left: dict[str, Allowance | None] = {}
        self._renewals: dict[str, Allowance | None] = {}

    def spend(self, agent: str, policy: AgentPolicy, *, now: float, freed: int = 0) -> None:
        """Counts a request at a steady instant for a lease that replaces `freed` others. Raises LeaseLimit, RateLimited."""
        if self._full(agent, policy, freed):
            self._lease_table.tick()
            if self._full(agent, policy, freed):
                first = min((lease.expires_at for lease in self._lease_table.all() if lease.agent == agent), default=now)
                raise LeaseLimit(
                    f"agent {agent!r} already holds {policy.max_leases} leases (agents.{agent}.max_leases): the first ends in"
                    f" {span(first - now)}, and `equabot lease revoke --agent {agent}` ends all of them",
                    retry_after=max(first - now, 0.0),
                )
        self._left[agent] = policy.spend(agent, self._left.get(agent), now=now)

    def spend_renewal(self, agent: str, policy: AgentPolicy, *, now: float) -> None:
        """Counts a renewal. The limit is the same as for requests, because each renewal is recorded. Raises RateLimited."""
        self._renewals[agent] = policy.spend(agent, self._renewals.get(agent), now=now)

    def left(self, agent: str) -> Allowance | None:
        """The current allowance, for `restore`."""
        return self._left.get(agent)

    def restore(self, agent: str, left: Allowance | None) -> None:
        """Restores an earlier allowance: the requests since then do not count."""
        self._left[agent] = left

    def _full(self, agent: str, policy: AgentPolicy, freed: int) -> bool:
        return self._lease_table.held_by(agent) - freed >= policy.max_leases
