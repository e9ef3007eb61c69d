"""Selects the profile for a request from orders, pins, sessions and the plan."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from equabot_broker.domain.credentials import Revival
from equabot_broker.domain.errors import InvalidArgument, NoUsableProfile, ProfileNotFound, ProviderUnknown, RefreshFailed
from equabot_broker.domain.known_names import no_provider
from equabot_broker.domain.masking import quoted
from equabot_broker.domain.policies import Policies
from equabot_broker.domain.profiles import split_id
from equabot_broker.domain.provider import Catalog
from equabot_broker.domain.remedies import ANYWHERE, Places
from equabot_broker.domain.selection import Candidate, Plan, explicit_order
from equabot_broker.engine.profiles.explanations import Explanations, unusable, wait
from equabot_broker.engine.profiles.plan_cache import PlanCache
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.sessions import SessionKey, Sessions
from equabot_broker.engine.profiles.suitability import Suitability
from equabot_broker.ports import Clock, StateStore


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile for a request. `automatic`: the request did not name it. `notice` is information for its holder."""

    candidate: Candidate
    automatic: bool
    notice: str = ""


class Resolver:
    """Selects profiles synchronously, and in O(1) while nothing changes. A change of a profile invalidates its plans."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        catalog: Catalog,
        policies: Policies,
        registry: ProfileRegistry,
        suitability: Suitability,
        configured_order: Mapping[str, tuple[str, ...]],
        orders: Mapping[tuple[str, str], tuple[str, ...]],
        pins: Mapping[SessionKey, tuple[str, bool]],
        places: Places = ANYWHERE,
    ) -> None:
        self._clock = clock
        self._store = store
        self._policies = policies
        self._registry = registry
        self._configured = configured_order
        self._orders = dict(orders)
        self._sessions = Sessions(store=store, pins=pins)
        self._suitability = suitability
        self._plan_cache = PlanCache(
            clock=clock, catalog=catalog, policies=policies, registry=registry, suitability=suitability, order=self._order
        )
        self.explanations = Explanations(clock=clock, catalog=catalog, policies=policies, registry=registry, places=places)
        self.catalog = catalog

    def apply(
        self, *, catalog: Catalog, policies: Policies, configured_order: Mapping[str, tuple[str, ...]], places: Places
    ) -> None:
        """Another configuration is in effect. Orders and pins that were set at run time stay."""
        self.catalog, self._policies, self._configured = catalog, policies, configured_order
        self._plan_cache.apply(catalog=catalog, policies=policies)
        self.explanations.apply(catalog=catalog, policies=policies, places=places)

    # -- names ---------------------------------------------------------------------------------------------------------

    def resolve_names(self, provider: str, profile: str) -> tuple[str, str]:
        """The normalised provider and the full profile id (or "") of a request that names at least one of them.

        Raises InvalidArgument, ProviderUnknown.
        """
        if not provider and not profile:
            raise InvalidArgument("name a provider or a profile")
        if ":" in profile:
            prefix, name = split_id(profile)
            of_profile = self.known(prefix)
            if provider and self.known(provider) != of_profile:
                raise InvalidArgument(f"profile {quoted(profile)} is for another provider than {quoted(provider)}")
            return of_profile, f"{of_profile}:{name}"
        if not provider:
            raise ProviderUnknown(f"profile {quoted(profile)} names no provider: write PROVIDER:NAME")
        known = self.known(provider)
        return known, f"{known}:{profile}" if profile else ""

    def known(self, provider: str) -> str:
        """The id of the provider, for an id or alias in any case. Raises ProviderUnknown."""
        known = self.catalog.normalise(provider)
        if known is None:
            raise ProviderUnknown(no_provider(provider, self.catalog.names()))
        return known

    # -- the choice ----------------------------------------------------------------------------------------------------

    def choose(
        self,
        agent: str,
        provider: str,
        *,
        profile: str = "",
        session: str = "",
        model: str = "",
        client: str = "",
        waits: bool = True,
    ) -> Choice:
        """The profile for a request of the agent, its model and its client program.

        `provider` and `profile` are normalised. Raises PolicyDenied, ProfileNotFound, NoUsableProfile, ReauthRequired,
        SourceNotSynced. Raises RefreshFailed for a login that must be refreshed first, if the caller `waits` for it or no other
        profile can serve.
        """
        policy = self._policies.of(agent)
        if profile:
            policy.check_profile(agent, provider, profile)
            candidate = self._named(agent, provider, profile)
        else:
            policy.check_provider(agent, provider)
            candidate = self._automatic((agent, session, provider), model=model, client=client, waits=waits)
        self._registry.touch((candidate.held.profile.agent, candidate.id))
        self._plan_cache.used(provider, candidate.id)
        pinned = session and candidate.id == self._sessions.pinned((agent, session, provider))[0]
        if profile or pinned or self.suits(agent, candidate, client):
            return Choice(candidate, automatic=not profile)
        return Choice(candidate, automatic=True, notice=self.explanations.unsuited(candidate.held))

    def plan(self, agent: str, provider: str, model: str = "", client: str = "") -> Plan:
        """The agent's ranked candidates of the provider for a client program and a model."""
        return self._plan_cache.plan(agent, provider, model, client)

    def suits(self, agent: str, candidate: Candidate, client: str) -> bool:
        """Whether the profile is for the client program, or an explicit order names it."""
        if not self._suitability.is_for_another(candidate.held, client):
            return True
        return candidate.id not in self.plan(agent, candidate.held.profile.provider, client=client).unsuited

    def _order(self, agent: str, provider: str) -> Sequence[str] | None:
        return explicit_order(provider, stored=self._stored(agent, provider), configured=self._configured)

    def has_another(
        self, agent: str, provider: str, *, than: str, session: str = "", model: str = "", client: str = ""
    ) -> bool:
        """Whether another profile than `than` could serve the agent now."""
        pinned, strict = self._sessions.pinned((agent, session, provider)) if session else ("", False)
        if strict and pinned == than:
            return False
        ready = (one for one in self.plan(agent, provider, model, client).ordered() if one.id != than)
        return any(_serves(one, self._clock.now()) for one in ready)

    def _automatic(self, key: SessionKey, *, model: str, client: str, waits: bool) -> Candidate:
        agent, session, provider = key
        current = self.plan(agent, provider, model, client)
        candidate = (self._of_session(current, key, model=model, client=client) if session else None) or current.first()
        if candidate is None:
            raise self.explanations.nothing_usable(current, agent, provider)
        if not (candidate.standing.usable or candidate.standing.trial):
            other = None if waits else next((c for c in current.ordered() if c.standing.usable), None)
            if other is None:
                raise self.explanations.behind(agent, candidate)
            return other
        if session and candidate.id != self._sessions.pinned(key)[0]:
            first, _ = self._sessions.served(key, client)
            kept = bool(first) and self._find(agent, provider, first) is not None
            self._sessions.serve(key, client, first=first if kept else candidate.id, last=candidate.id)
        return candidate

    def _of_session(self, current: Plan, key: SessionKey, *, model: str, client: str) -> Candidate | None:
        """The session's own profile if it can serve: the pinned one, then the first one that served it, then the last one.

        After a cooldown the first profile serves its sessions again. Otherwise each cooldown would move sessions to other
        profiles for good. Raises NoUsableProfile, RefreshFailed for a strict pin that cannot serve.
        """
        agent, _, provider = key
        now = self._clock.now()
        pinned, strict = self._sessions.pinned(key)
        if pinned:
            candidate = self._find(agent, provider, pinned)
            candidate = None if candidate is None else candidate.for_model(model, now=now)
            if candidate is not None and _serves(candidate, now):
                return candidate
            if strict and candidate is not None and candidate.standing.revival is Revival.FAILING:
                raise self.explanations.behind(agent, candidate)
            if strict:
                why = "no source holds it" if candidate is None else self.explanations.why(agent, candidate, model)
                raise NoUsableProfile(
                    f"the session is pinned to {pinned!r}, which cannot serve ({why}): wait, or unpin it",
                    metadata={pinned: why},
                    retry_after=wait([] if candidate is None else [candidate], now),
                )
        for profile in self._sessions.served(key, client):
            candidate = current.find(profile)
            if candidate is not None and _serves(candidate, now) and profile not in current.unsuited:
                return candidate
        return None

    def _find(self, agent: str, provider: str, profile: str) -> Candidate | None:
        """The profile with that id if the agent may use it and it belongs to this provider. Orders are ignored."""
        found = self._registry.find(agent, profile)
        if found is None or found[1].held.profile.provider != provider:
            return None
        return found[1] if self._policies.of(agent).allows_profile(provider, profile) else None

    def _named(self, agent: str, provider: str, profile: str) -> Candidate:
        candidate = self._find(agent, provider, profile)
        if candidate is None:
            raise self.explanations.not_found(agent, provider, profile)
        if candidate.standing.revival is not Revival.NONE:
            raise self.explanations.behind(agent, candidate)
        if not (candidate.standing.usable or candidate.standing.trial):
            why = self.explanations.why(agent, candidate)
            message = f"profile {profile!r} cannot be used: {why}"
            raise unusable(message, [candidate], {profile: why}, now=self._clock.now())
        return candidate

    def lead(self, key: SessionKey, *, model: str, client: str) -> tuple[Plan, Candidate | None]:
        """The plan for the session's requests, and the candidate that would be tried first, or None. Changes nothing."""
        agent, session, provider = key
        current = self.plan(agent, provider, model, client)
        try:
            own = self._of_session(current, key, model=model, client=client) if session else None
        except (NoUsableProfile, RefreshFailed):
            return current, None
        return current, own or current.first()

    def pinned(self, key: SessionKey) -> str:
        """The profile to which the session is pinned, or empty."""
        return self._sessions.pinned(key)[0] if key[1] else ""

    def ordered_providers(self, agent: str) -> set[str]:
        """The providers with an explicit order for the agent."""
        stored = {*self._orders, *self._registry.material.orders}
        return {of_provider for of_agent, of_provider in stored if of_agent == agent} | self._configured.keys()

    # -- pins and orders -----------------------------------------------------------------------------------------------

    def pin(self, agent: str, session: str, provider: str, profile: str, *, strict: bool) -> None:
        """Pins the session to a profile. Raises InvalidArgument, ProfileNotFound, PolicyDenied."""
        if not session:
            raise InvalidArgument("a pin needs a session")
        if not profile:
            raise InvalidArgument("a pin needs a profile")
        provider, profile = self.resolve_names(provider, profile)
        self._policies.of(agent).check_profile(agent, provider, profile)
        if self._find(agent, provider, profile) is None:
            raise self.explanations.not_found(agent, provider, profile)
        self._sessions.pin((agent, session, provider), profile, strict=strict)

    def unpin(self, agent: str, session: str, provider: str) -> None:
        """Removes the session's pin. Raises ProviderUnknown."""
        self._sessions.unpin((agent, session, self.known(provider)))

    def order(self, agent: str, provider: str) -> tuple[str, ...]:
        """The stored order override, or empty. Raises PolicyDenied for an unknown agent, ProviderUnknown."""
        self._policies.of(agent)
        return self._stored(agent, self.known(provider))

    def check_order(self, agent: str, provider: str, profiles: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """The normalised provider and profiles of an order. Raises InvalidArgument for a profile of another provider,
        PolicyDenied for one that the agent may not use, ProfileNotFound for one that no source holds."""
        policy = self._policies.of(agent)
        provider = self.known(provider)
        profiles = list(profiles)
        if not all(profiles):
            raise InvalidArgument("a profile id in the order is empty")
        wanted = tuple(dict.fromkeys(self.resolve_names(provider, profile)[1] for profile in profiles))
        for profile in wanted:
            policy.check_profile(agent, provider, profile)
        missing = [profile for profile in wanted if self._find(agent, provider, profile) is None]
        if missing:
            raise ProfileNotFound(f"profile {', '.join(map(quoted, missing))} does not exist: the order was not stored")
        return provider, wanted

    def set_order(self, agent: str, provider: str, profiles: Iterable[str]) -> tuple[str, ...]:
        """Stores an override in the state of the broker, or clears it if `profiles` is empty.

        It applies if the agent's profile store has no order. Raises like `check_order`.
        """
        provider, wanted = self.check_order(agent, provider, profiles)
        if wanted:
            self._orders[agent, provider] = wanted
        else:
            self._orders.pop((agent, provider), None)
        self._store.put_order((agent, provider), wanted or None)
        self._store.flush()
        self._registry.reordered()
        return wanted

    def _stored(self, agent: str, provider: str) -> tuple[str, ...]:
        key = (agent, provider)
        return self._registry.material.orders.get(key) or self._orders.get(key, ())


def _serves(candidate: Candidate, now: float) -> bool:
    """Whether it can serve now or after a refresh that is due."""
    standing = candidate.standing
    return (standing.usable or standing.trial or standing.revival is Revival.COMING) and standing.cooling_until <= now
