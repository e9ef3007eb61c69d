"""Suspends and resumes agents for an operator: effective at once, and on the disk before the answer."""

from equabot_broker.domain.errors import StateUnavailable
from equabot_broker.domain.policies import Policies
from equabot_broker.domain.suspension import Suspension
from equabot_broker.engine.leases.admin import LeaseAdmin
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.ports import Clock, StateStore
from equabot_broker.telemetry.broker_events import SuspensionLifted, SuspensionSet
from equabot_broker.telemetry.events import Events


class SuspensionControl:
    """Suspends and resumes agents. A repeated call stores the state again, in case it could not be stored before."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        events: Events,
        policies: Policies,
        lease_admin: LeaseAdmin,
        suspensions: Suspensions,
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._policies = policies
        self._lease_admin = lease_admin
        self._suspensions = suspensions

    def apply(self, policies: Policies) -> None:
        """Another configuration is in effect. A suspended agent stays suspended."""
        self._policies = policies

    def states(self) -> dict[str, bool]:
        """All configured and all suspended agents, and whether each is suspended."""
        suspended = self._suspensions.all
        return {agent: agent in suspended for agent in sorted({*self._policies.agents, *suspended})}

    async def suspend(self, agent: str, reason: str = "") -> int:
        """Suspends the agent and ends its leases. Returns the number of ended leases.

        A repeated suspension keeps its start, and its reason if none is given. Raises InvalidArgument for an agent that is not
        configured. Raises StateUnavailable if the suspension is in effect but could not be stored.
        """
        self._policies.check_named(agent)
        before = self._suspensions.of(agent) or Suspension(since=self._clock.now())
        tokens = tuple(lease.token for lease in self._lease_admin.active(agent=agent) if lease.token)
        suspension = Suspension(since=before.since, reason=reason or before.reason, tokens=before.with_tokens(tokens))
        self._suspensions.put(agent, suspension)
        self._store.put_suspension(agent, suspension)
        ended = self._lease_admin.revoke_matching(agent=agent, reason="agent_suspended")
        self._events.emit(SuspensionSet(agent=agent, reason=suspension.reason, leases=ended))
        if fault := await self._store.sync():
            raise StateUnavailable(
                f"agent {agent!r} is suspended, but a restart of the broker would lose the suspension: {fault}."
                " Correct that, then suspend it again"
            )
        return ended

    async def resume(self, agent: str) -> bool:
        """Resumes the agent. Returns whether it was suspended.

        Raises InvalidArgument for an agent that is neither configured nor suspended. Raises StateUnavailable if the agent is
        resumed but this could not be stored.
        """
        self._policies.check_named(agent, self._suspensions.all)
        suspended = self._suspensions.of(agent) is not None
        if suspended:
            self._suspensions.put(agent, None)
            self._events.emit(SuspensionLifted(agent=agent))
        self._store.put_suspension(agent, None)
        if fault := await self._store.sync():
            raise StateUnavailable(
                f"agent {agent!r} is resumed, but a restart of the broker would suspend it again: {fault}."
                " Correct that, then resume it again"
            )
        return suspended
