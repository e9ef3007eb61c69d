"""Caches the plans of `resolver` until one of their candidates changes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from equabot_broker.domain.policies import Policies
from equabot_broker.domain.provider import Catalog
from equabot_broker.domain.selection import Plan, plan
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.suitability import Suitability
from equabot_broker.ports import Clock


@dataclass(slots=True)
class _Kept:
    """The plans for one agent, provider and client program, valid for one generation of the registry.

    `of_models` has the models for which a profile is in cooldown; all other models share one plan.
    """

    generation: int
    any_model: Plan
    of_models: dict[str, Plan] = field(default_factory=dict)


class PlanCache:
    """Ranks the candidates of each agent. `order` returns the explicit order of an agent and provider, or None."""

    def __init__(
        self,
        *,
        clock: Clock,
        catalog: Catalog,
        policies: Policies,
        registry: ProfileRegistry,
        suitability: Suitability,
        order: Callable[[str, str], Sequence[str] | None],
    ) -> None:
        self._clock = clock
        self._catalog = catalog
        self._suitability = suitability
        self._policies = policies
        self._registry = registry
        self._order = order
        self._kept: dict[str, dict[tuple[str, str], _Kept]] = {}

    def apply(self, *, catalog: Catalog, policies: Policies) -> None:
        """Another configuration is in effect."""
        self._catalog, self._policies = catalog, policies
        self._kept.clear()

    def plan(self, agent: str, provider: str, model: str = "", client: str = "") -> Plan:
        """The agent's ranked candidates of the provider for a client program and a model."""
        now, generation = self._clock.now(), self._registry.generation
        vendor = self._catalog.providers.get(provider)
        client = "" if vendor is None else vendor.client(client)
        kept = self._kept.setdefault(provider, {}).get((agent, client))
        if kept is None or kept.generation != generation or kept.any_model.valid_until <= now:
            kept = self._kept[provider][agent, client] = _Kept(generation, self._made(agent, provider, "", client, now))
        if model not in kept.any_model.models:
            return kept.any_model
        known = kept.of_models.get(model)
        if known is None or known.valid_until <= now:
            known = kept.of_models[model] = self._made(agent, provider, model, client, now)
        return known

    def used(self, provider: str, profile: str) -> None:
        """Makes the profile the most recently used one in every plan."""
        for kept in self._kept.get(provider, {}).values():
            for known in (kept.any_model, *kept.of_models.values()):
                known.used(profile)

    def _made(self, agent: str, provider: str, model: str, client: str, now: float) -> Plan:
        policy = self._policies.of(agent)
        found = (candidate for _, candidate in self._registry.of(agent, provider))
        candidates = [c.for_model(model, now=now) for c in found if policy.allows_profile(provider, c.id)]
        order = self._order(agent, provider)
        if order is not None:
            order = [profile for profile in order if policy.allows_profile(provider, profile)]
        unsuited, until = self._suitability.unsuited(agent, candidates, client=client, ordered=order is not None)
        made = plan(candidates, order=order, now=now, unsuited=unsuited)
        made.valid_until = min(made.valid_until, until)
        return made
