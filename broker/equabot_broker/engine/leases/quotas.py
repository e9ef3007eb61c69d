"""How many leases an agent may hold, and how often it may ask for one."""

from equabot_broker.domain.credentials import span
from equabot_broker.domain.errors import LeaseLimit
from equabot_broker.domain.policies import AgentPolicy, Allowance
from equabot_broker.engine.leases.table import LeaseTable


class Quotas:
    """Counts what agents hold by the lease table, and what they ask for by itself."""

    def __init__(self, lease_table: LeaseTable) -> None:
        self._lease_table = lease_table
        self._left: dict[str, Allowance | None] = {}
        self._renewals: dict[str, Allowance | None] = {}

    def spend(self, agent: str, policy: AgentPolicy, *, now: float, freed: int = 0) -> None:
        """One more request, at a steady instant, for a lease in place of `freed` others. Raises LeaseLimit, RateLimited."""
        if self._full(agent, policy, freed):
            self._lease_table.tick()
            if self._full(agent, policy, freed):
                first = min((lease.expires_at for lease in self._lease_table.all() if lease.agent == agent), default=now)
                raise LeaseLimit(
                    f"agent {agent!r} holds {policy.max_leases} leases already, its agents.{agent}.max_leases: the first ends"
                    f" in {span(first - now)}, and `equabot lease revoke --agent {agent}` ends them all",
                    retry_after=max(first - now, 0.0),
                )
        self._left[agent] = policy.spend(agent, self._left.get(agent), now=now)

    def spend_renewal(self, agent: str, policy: AgentPolicy, *, now: float) -> None:
        """One more renewal, of which there may be as many as requests for leases: each is a record. Raises RateLimited."""
        self._renewals[agent] = policy.spend(agent, self._renewals.get(agent), now=now)

    def left(self, agent: str) -> Allowance | None:
        """What `restore` gives back."""
        return self._left.get(agent)

    def restore(self, agent: str, left: Allowance | None) -> None:
        """As if it had not been asked since."""
        self._left[agent] = left

    def _full(self, agent: str, policy: AgentPolicy, freed: int) -> bool:
        return self._lease_table.held_by(agent) - freed >= policy.max_leases
