"""Choosing the profile for a request: orders, pins, sessions, and the plan they come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from broker.domain.credentials import Revival, way_back
from broker.domain.errors import (
    BrokerError,
    InvalidArgument,
    NoUsableProfile,
    ProfileNotFound,
    ProviderUnknown,
    ReauthRequired,
    RefreshFailed,
    SourceNotSynced,
)
from broker.domain.hygiene import quoted
from broker.domain.policies import AgentPolicy, Policies
from broker.domain.profiles import State, split_id
from broker.domain.provider import Catalog
from broker.domain.remedies import ANYWHERE, Places, how_to_add
from broker.domain.selection import Candidate, Plan, explicit_order
from broker.domain.statuses import ProfileStatus, describe
from broker.engine.planning import Planning
from broker.engine.sessions import SessionKey, Sessions
from broker.engine.standing import Standings
from broker.ports import Clock, StateStore


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile for a request; `automatic` unless the request named it."""

    candidate: Candidate
    automatic: bool


class Choosing:
    """Decides, synchronously and in O(1) while nothing changes. A plan is thrown away when a profile changes."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        catalog: Catalog,
        policies: Policies,
        standings: Standings,
        configured_order: Mapping[str, tuple[str, ...]],
        orders: Mapping[tuple[str, str], tuple[str, ...]],
        pins: Mapping[SessionKey, tuple[str, bool]],
        places: Places = ANYWHERE,
    ) -> None:
        self._clock = clock
        self._store = store
        self._places = places
        self._policies = policies
        self._standings = standings
        self._configured = configured_order
        self._orders = dict(orders)
        self._sessions = Sessions(store=store, pins=pins)
        self._planning = Planning(clock=clock, policies=policies, standings=standings, order=self._order)
        self.catalog = catalog

    # -- names ---------------------------------------------------------------------------------------------------------

    def resolve_names(self, provider: str, profile: str) -> tuple[str, str]:
        """The normalised provider and the full profile id (or "") of a request that names at least one of them.

        Raises InvalidArgument, ProviderUnknown.
        """
        if not provider and not profile:
            raise InvalidArgument("name a provider or a profile")
        if ":" in profile:
            prefix, name = split_id(profile)
            of_profile = self._known(prefix)
            if provider and self._known(provider) != of_profile:
                raise InvalidArgument(f"profile {quoted(profile)} is for another provider than {quoted(provider)}")
            return of_profile, f"{of_profile}:{name}"
        known = self._known(provider)
        return known, f"{known}:{profile}" if profile else ""

    def _known(self, provider: str) -> str:
        known = self.catalog.normalise(provider)
        if known is None:
            hint = "see `equabot models status`, or add it to providers"
            raise ProviderUnknown(f"provider {quoted(provider)} is unknown: {hint}")
        return known

    # -- the choice ----------------------------------------------------------------------------------------------------

    def choose(
        self, agent: str, provider: str, *, profile: str = "", session: str = "", model: str = "", waits: bool = True
    ) -> Choice:
        """The profile that serves a request of the agent now, for `model` where it names one.

        `provider` and `profile` are normalised. Raises PolicyDenied, ProfileNotFound, NoUsableProfile, ReauthRequired,
        SourceNotSynced; and RefreshFailed for a login that has to be refreshed first, where the caller `waits` for that, or no
        other profile serves.
        """
        policy = self._policies.of(agent)
        if profile:
            policy.check_profile(agent, provider, profile)
            candidate = self._named(agent, provider, profile)
        else:
            policy.check_provider(agent, provider)
            candidate = self._automatic((agent, session, provider), model=model, waits=waits)
        self._standings.touch((candidate.held.profile.agent, candidate.id))
        self._planning.used(provider, candidate.id)
        return Choice(candidate, automatic=not profile)

    def plan(self, agent: str, provider: str, model: str = "") -> Plan:
        """The agent's candidates of the provider, ranked for requests for the model."""
        return self._planning.plan(agent, provider, model)

    def _order(self, agent: str, provider: str) -> Sequence[str] | None:
        return explicit_order(provider, stored=self._stored(agent, provider), configured=self._configured)

    def _automatic(self, key: SessionKey, *, model: str, waits: bool) -> Candidate:
        agent, session, provider = key
        current = self.plan(agent, provider, model)
        candidate = (self._of_session(current, key, model=model) if session else None) or current.first()
        if candidate is None:
            raise self._nothing_usable(current, agent, provider)
        if not (candidate.standing.usable or candidate.standing.trial):
            other = None if waits else next((c for c in current.ordered() if c.standing.usable), None)
            if other is None:
                raise self._behind(agent, candidate)
            return other
        if session and candidate.id != self._sessions.pinned(key)[0]:
            self._sessions.serve(key, candidate.id, now=self._clock.now())
        return candidate

    def _of_session(self, current: Plan, key: SessionKey, *, model: str = "") -> Candidate | None:
        """The session's own profile, where it has one that can serve now: the pinned one, then the one that served before.

        Raises NoUsableProfile, RefreshFailed for a strict pin that cannot serve.
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
                raise self._behind(agent, candidate)
            if strict:
                why = "no source holds it" if candidate is None else self._why(agent, candidate, model)
                raise NoUsableProfile(
                    f"the session is pinned to {pinned!r}, which cannot serve ({why}): wait, or unpin it",
                    metadata={pinned: why},
                    retry_after=_wait([] if candidate is None else [candidate], now),
                )
        # An automatic choice stays until a cooldown, also one that has lapsed since.
        profile, since = self._sessions.served(key)
        candidate = current.find(profile)
        stays = candidate is not None and _serves(candidate, now) and candidate.usage.cooldown_until <= since
        return candidate if stays else None

    def _find(self, agent: str, provider: str, profile: str) -> Candidate | None:
        """The named profile, in an order or not, if the agent may have it and it is of this provider."""
        found = self._standings.find(agent, profile)
        if found is None or found[1].held.profile.provider != provider:
            return None
        return found[1] if self._policies.of(agent).allows_profile(provider, profile) else None

    def _named(self, agent: str, provider: str, profile: str) -> Candidate:
        candidate = self._find(agent, provider, profile)
        if candidate is None:
            raise self._not_found(agent, provider, profile)
        if candidate.standing.revival is not Revival.NONE:
            raise self._behind(agent, candidate)
        if not (candidate.standing.usable or candidate.standing.trial):
            why = self._why(agent, candidate)
            message = f"profile {profile!r} cannot be used: {why}"
            raise _unusable(message, [candidate], {profile: why}, now=self._clock.now())
        return candidate

    # -- what cannot be chosen, and why --------------------------------------------------------------------------------

    def _why(self, agent: str, candidate: Candidate, model: str = "") -> str:
        """Why a profile that a source holds is in its state for the agent, in words of now."""
        standing = self._standings.judge((candidate.held.profile.agent, candidate.id), agent).standing
        standing = standing.for_model(model, now=self._clock.now())
        return "; ".join(filter(None, (standing.reason or standing.state.value, way_back(candidate.held.profile, standing))))

    def _behind(self, agent: str, candidate: Candidate) -> RefreshFailed:
        """A login that serves once it is refreshed."""
        profile, why, wait = candidate.held.profile, self._why(agent, candidate), None
        trouble = self._standings.trouble((profile.agent, profile.id))
        if trouble is not None and candidate.standing.revival is Revival.FAILING:
            wait = max(trouble.next_try - self._clock.now(), 0.0)
        message = f"profile {profile.id!r} has to be refreshed first: {why}"
        return RefreshFailed(message, metadata={profile.id: why}, retry_after=wait)

    def _reasons(self, agent: str, current: Plan) -> dict[str, str]:
        return {c.id: self._why(agent, c) for c in current.unusable} | dict(current.excluded)

    def _not_found(self, agent: str, provider: str, profile: str) -> ProfileNotFound | SourceNotSynced:
        unread = self._unread()
        if unread is not None:
            return unread
        policy = self._policies.of(agent)
        ids = sorted(c.id for _, c in self._standings.of(agent, provider) if policy.allows_profile(provider, c.id))
        return ProfileNotFound(f"no profile {quoted(profile)}; there is {', '.join(ids[:10]) or 'none of this provider'}")

    def _nothing_usable(self, current: Plan, agent: str, provider: str) -> BrokerError:
        reasons = self._reasons(agent, current)
        if reasons:
            told = "; ".join(f"{profile}: {why}" for profile, why in list(reasons.items())[:5])
            message = f"no usable profile for provider {provider!r} ({told})"
            return _unusable(message, current.unusable, reasons, now=self._clock.now())
        unread = self._unread()
        if unread is not None:
            return unread
        return NoUsableProfile(f"no credential for provider {provider!r}: {self.how_to_add(provider)}")

    def how_to_add(self, provider: str) -> str:
        """How the broker gets a first credential of the provider."""
        return how_to_add(self.catalog.providers.get(provider), self._places)

    def _unread(self) -> SourceNotSynced | None:
        unread = self._standings.material.unread
        if not unread:
            return None
        sources = ", ".join(unread[:5])
        return SourceNotSynced(f"it may be in a source that has not been read yet: {sources}; `equabot doctor` says why")

    # -- what is told --------------------------------------------------------------------------------------------------

    def statuses(
        self, agent: str, provider: str = "", *, session: str = "", model: str = "", operator: bool = False
    ) -> list[ProfileStatus]:
        """The agent's candidates of one provider (or of every one it may use), in the order they would be tried for the model,
        then those that cannot serve. Takes nothing. An agent that may have no raw lease is shown no character of a secret; an
        `operator` is shown the labels of every profile. Raises ProviderUnknown, PolicyDenied."""
        policy = self._policies.of(agent)
        labels = operator or policy.hands_out_secrets
        rows = self._rows(agent, policy, provider, session=session, model=model)
        return rows if labels else [replace(row, label="") for row in rows]

    def _rows(self, agent: str, policy: AgentPolicy, provider: str, *, session: str, model: str) -> list[ProfileStatus]:
        self._standings.tick()
        if provider:
            known = self._known(provider)
            policy.check_provider(agent, known)
            return self._statuses((agent, session, known), model)
        stored = {*self._orders, *self._standings.material.orders}
        ordered = {of_provider for of_agent, of_provider in stored if of_agent == agent} | self._configured.keys()
        allowed = sorted(p for p in self._standings.providers() | ordered if policy.allows_provider(p))
        return [status for p in allowed if p in self.catalog.providers for status in self._statuses((agent, session, p), model)]

    def _statuses(self, key: SessionKey, model: str) -> list[ProfileStatus]:
        agent, session, provider = key
        current = self.plan(agent, provider, model)
        try:
            lead = (self._of_session(current, key, model=model) if session else None) or current.first()
        except (NoUsableProfile, RefreshFailed):
            lead = None
        usable = dict.fromkeys([*([] if lead is None else [lead.id]), *(c.id for c in current.ordered())])
        rest = {profile: why for profile, why in self._reasons(agent, current).items() if profile not in usable}
        pinned = self._sessions.pinned(key)[0] if session else ""
        url = self.catalog.providers[provider].base_url
        rows: list[ProfileStatus] = []
        for profile in (*usable, *rest):
            found = self._standings.find(agent, profile)
            if found is None:
                rows.append(ProfileStatus(id=profile, provider=provider, reason=rest[profile], base_url=url))
                continue
            row = describe(
                self._standings.judge(found[0], agent).for_model(model, now=self._clock.now()),
                reason=rest.get(profile) or self._why(agent, found[1], model),
                is_next=lead is not None and profile == lead.id,
                usable=found[1].standing.usable and profile not in rest,
                pinned=profile == pinned,
                base_url=url,
                now=self._clock.now(),
            )
            rows.append(row)
        return rows

    # -- pins and orders -----------------------------------------------------------------------------------------------

    def pin(self, agent: str, session: str, provider: str, profile: str, *, strict: bool) -> None:
        """Makes the session try one profile first. Raises InvalidArgument, ProfileNotFound, PolicyDenied."""
        if not session:
            raise InvalidArgument("a pin needs a session")
        if not profile:
            raise InvalidArgument("a pin needs a profile")
        provider, profile = self.resolve_names(provider, profile)
        self._policies.of(agent).check_profile(agent, provider, profile)
        if self._find(agent, provider, profile) is None:
            raise self._not_found(agent, provider, profile)
        self._sessions.pin((agent, session, provider), profile, strict=strict)

    def unpin(self, agent: str, session: str, provider: str) -> None:
        """Takes the session's pin away. Raises ProviderUnknown."""
        self._sessions.unpin((agent, session, self._known(provider)))

    def order(self, agent: str, provider: str) -> tuple[str, ...]:
        """The stored order override; empty for none. Raises PolicyDenied for an unknown agent, ProviderUnknown."""
        self._policies.of(agent)
        return self._stored(agent, self._known(provider))

    def check_order(self, agent: str, provider: str, profiles: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """The provider and the profiles of an order to be stored, normalised. Raises InvalidArgument for a profile of another
        provider, PolicyDenied for one that the agent may not have, ProfileNotFound for one that no source holds."""
        policy = self._policies.of(agent)
        provider = self._known(provider)
        profiles = list(profiles)
        if not all(profiles):
            raise InvalidArgument("a profile id in the order is empty")
        wanted = tuple(dict.fromkeys(self.resolve_names(provider, profile)[1] for profile in profiles))
        for profile in wanted:
            policy.check_profile(agent, provider, profile)
        missing = [profile for profile in wanted if self._find(agent, provider, profile) is None]
        if missing:
            raise ProfileNotFound(f"no profile {', '.join(map(quoted, missing))}: nothing was stored")
        return provider, wanted

    def set_order(self, agent: str, provider: str, profiles: Iterable[str]) -> tuple[str, ...]:
        """Stores (or, given none, clears) an override in the broker's own state. It counts where the agent's profile store has
        none. Raises as `check_order` does."""
        provider, wanted = self.check_order(agent, provider, profiles)
        if wanted:
            self._orders[agent, provider] = wanted
        else:
            self._orders.pop((agent, provider), None)
        self._store.put_order((agent, provider), wanted or None)
        self._store.flush()
        self._standings.reordered()
        return wanted

    def _stored(self, agent: str, provider: str) -> tuple[str, ...]:
        key = (agent, provider)
        return self._standings.material.orders.get(key) or self._orders.get(key, ())


def _serves(candidate: Candidate, now: float) -> bool:
    """Now, or once the refresh that is due has been made."""
    standing = candidate.standing
    return (standing.usable or standing.trial or standing.revival is Revival.COMING) and standing.cooling_until <= now


def _unusable(
    message: str, candidates: Sequence[Candidate], reasons: Mapping[str, str], *, now: float
) -> NoUsableProfile | ReauthRequired:
    states = {candidate.standing.state for candidate in candidates}
    if states == {State.REAUTH_REQUIRED}:
        return ReauthRequired(message, metadata=reasons)
    return NoUsableProfile(message, metadata=reasons, retry_after=_wait(candidates, now))


def _wait(candidates: Iterable[Candidate], now: float) -> float | None:
    """In how many seconds the first of them serves again by itself; None: it takes a person."""
    returning = [c.standing.returns_at for c in candidates if c.standing.returns_at]
    return max(min(returning) - now, 0.0) if returning else None
