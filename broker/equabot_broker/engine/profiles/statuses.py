"""The status of each profile for an agent or an operator, with the reason for its state or position."""

from dataclasses import replace

from equabot_broker.diagnosis.statuses import ProfileStatus, describe
from equabot_broker.domain.policies import AgentPolicy, Policies
from equabot_broker.domain.selection import Candidate, Plan
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.profiles.sessions import SessionKey
from equabot_broker.ports import Clock


class ProfileStatuses:
    """Lists profiles in the order in which the resolver would try them."""

    def __init__(self, *, clock: Clock, policies: Policies, registry: ProfileRegistry, resolver: Resolver) -> None:
        self._clock = clock
        self._policies = policies
        self._registry = registry
        self._resolver = resolver

    def apply(self, policies: Policies) -> None:
        """Another configuration is in effect."""
        self._policies = policies

    def of(
        self,
        agent: str,
        provider: str = "",
        *,
        session: str = "",
        model: str = "",
        client: str = "",
        operator: bool = False,
    ) -> list[ProfileStatus]:
        """The agent's candidates of one provider, or of all that it may use, in the order of attempts.

        Candidates that cannot serve come last. The order is that for the model and the client program. Only an agent that may
        have raw leases, and an `operator`, get labels of secrets. Raises ProviderUnknown, PolicyDenied.
        """
        policy = self._policies.of(agent)
        labels = operator or policy.hands_out_secrets
        self._registry.tick()
        asked = [self._resolver.known(provider)] if provider else self._listed(agent, policy)
        if provider:
            policy.check_provider(agent, asked[0])
        rows = [row for of in asked for row in self._statuses((agent, session, of), model=model, client=client)]
        return rows if labels else [replace(row, label="") for row in rows]

    def _listed(self, agent: str, policy: AgentPolicy) -> list[str]:
        """The providers that the agent may use and that have profiles or an order."""
        ordered = self._resolver.ordered_providers(agent)
        allowed = sorted(p for p in self._registry.providers() | ordered if policy.allows_provider(p))
        return [p for p in allowed if p in self._resolver.catalog.providers]

    def _statuses(self, key: SessionKey, *, model: str, client: str) -> list[ProfileStatus]:
        agent, _, provider = key
        current, lead = self._resolver.lead(key, model=model, client=client)
        usable = dict.fromkeys([*([] if lead is None else [lead.id]), *(c.id for c in current.ordered())])
        rest = {
            profile: why
            for profile, why in self._resolver.explanations.reasons(agent, current).items()
            if profile not in usable
        }
        pinned = self._resolver.pinned(key)
        url = self._resolver.catalog.providers[provider].base_url
        rows: list[ProfileStatus] = []
        for profile in (*usable, *rest):
            found = self._registry.find(agent, profile)
            if found is None:
                rows.append(ProfileStatus(id=profile, provider=provider, reason=rest[profile], base_url=url))
                continue
            row = describe(
                self._registry.judge(found[0], agent).for_model(model, now=self._clock.now()),
                reason=rest.get(profile) or self._reason(agent, found[1], current, model),
                is_next=lead is not None and profile == lead.id,
                usable=found[1].standing.usable and profile not in rest,
                pinned=profile == pinned,
                base_url=url,
                now=self._clock.now(),
            )
            rows.append(row)
        return rows

    def _reason(self, agent: str, candidate: Candidate, current: Plan, model: str) -> str:
        """The reason for the state of the profile, or for its position if it can serve."""
        if candidate.id in current.unsuited and not candidate.for_model(model, now=self._clock.now()).standing.reason:
            return self._resolver.explanations.unsuited(candidate.held)
        return self._resolver.explanations.why(agent, candidate, model)
