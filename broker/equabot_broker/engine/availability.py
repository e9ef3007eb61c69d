"""Decides whether an agent would get a lease now. Health, `ListProfiles`, diagnosis and the commands use this decision.

It checks the same conditions as a grant: the agent is not suspended, its policy allows the provider, a delivery is available,
and a profile of its plan can serve. The limits of an agent (leases, rate) are temporary and are not checked.
"""

from collections.abc import Iterable
from dataclasses import replace

from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.errors import AgentSuspended, BrokerError
from equabot_broker.domain.policies import Policies
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.terms import LeaseTerms
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.profiles.statuses import ProfileStatuses


class Availability:
    """Answers from the current state. It changes nothing."""

    def __init__(
        self,
        *,
        policies: Policies,
        registry: ProfileRegistry,
        resolver: Resolver,
        profile_statuses: ProfileStatuses,
        terms: LeaseTerms,
        suspensions: Suspensions,
    ) -> None:
        self._policies = policies
        self._registry = registry
        self._resolver = resolver
        self._profile_statuses = profile_statuses
        self._terms = terms
        self._suspensions = suspensions

    def apply(self, *, policies: Policies) -> None:
        """Another configuration is in effect."""
        self._policies = policies

    def obstacle(self, agent: str, provider: str) -> str:
        """Why the agent would get no lease of the provider; empty if it would get one."""
        if fault := self._fault(agent, provider):
            return fault
        current = self._resolver.plan(agent, provider)
        if any(candidate.standing.usable for candidate in current.ordered()):
            return ""
        return self._resolver.explanations.nothing_usable(current, agent, provider).message

    def grants(self, provider: str) -> bool:
        """Whether some agent would get a lease of the provider."""
        return any(not self.obstacle(agent, provider) for agent in self._policies.agents)

    def serves(self, profile_id: str) -> bool | None:
        """Whether some agent would get a lease of this profile; None if no source holds it."""
        holders = self._registry.holders(profile_id)
        provider = profile_id.partition(":")[0]
        return any(self._named(agent, provider, profile_id) for agent in self._policies.agents) if holders else None

    def obstacles(self, provider: str) -> str:
        """Why no agent would get a lease of the provider, by agent."""
        found = {agent: self.obstacle(agent, provider) for agent in self._policies.agents}
        if len(set(found.values())) == 1:
            return next(iter(found.values()))
        return "; ".join(f"agent {agent}: {why}" for agent, why in found.items())

    def statuses(self, agent: str, provider: str = "") -> list[ProfileStatus]:
        """The agent's candidates for an operator, as in `ProfileStatuses.of`.

        If the agent would get no lease at all, no candidate is usable. Raises ProviderUnknown, PolicyDenied.
        """
        return list(self._limited(agent, self._profile_statuses.of(agent, provider, operator=True)))

    def _limited(self, agent: str, rows: Iterable[ProfileStatus]) -> Iterable[ProfileStatus]:
        for row in rows:
            fault = self._fault(agent, row.provider)
            yield replace(row, usable=False, next=False, reason=fault) if fault and row.usable else row

    def _named(self, agent: str, provider: str, profile_id: str) -> bool:
        found = self._registry.find(agent, profile_id)
        if found is None or not found[1].standing.usable or found[1].held.profile.provider != provider:
            return False
        return self._policies.of(agent).allows_profile(provider, profile_id) and not self._fault(agent, provider)

    def _fault(self, agent: str, provider: str) -> str:
        """Why the agent would get no lease of the provider with any profile, or empty."""
        try:
            self._suspensions.check(agent)
            self._policies.of(agent).check_provider(agent, provider)
            self._terms.delivery(agent, provider)
        except AgentSuspended:
            return f"agent {agent} is suspended: run `equabot agent resume {agent}`"
        except BrokerError as error:
            return error.message
        return ""
