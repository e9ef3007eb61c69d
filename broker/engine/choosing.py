"""Choosing the profile for a request: orders, pins, sessions, and the plan they come to."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from broker.domain.errors import InvalidArgument, NoUsableProfile, ProfileNotFound, ProviderUnknown, ReauthRequired
from broker.domain.policies import Policies
from broker.domain.profiles import State, split_id
from broker.domain.provider import Catalog
from broker.domain.selection import Candidate, Plan, explicit_order, plan
from broker.domain.statuses import ProfileStatus, describe
from broker.engine.standing import Key, Standings
from broker.ports import Clock, StateStore

_SESSIONS_KEPT: Final = 10_000

V = TypeVar("V")

SessionKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """The profile for a request; `automatic` unless the request named it."""

    candidate: Candidate
    automatic: bool


class Choosing:
    """Decides, synchronously and in O(1) while nothing changes. Its plans are thrown away whenever a profile changes."""

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
    ) -> None:
        self._clock = clock
        self._store = store
        self._policies = policies
        self._standings = standings
        self._configured = configured_order
        self._orders = dict(orders)
        self._pins = OrderedDict(pins)
        self._sticky: OrderedDict[SessionKey, str] = OrderedDict()
        self._plans: dict[tuple[str, str], Plan] = {}
        self.catalog = catalog
        standings.listeners.append(self._changed)

    def _changed(self, keys: frozenset[Key]) -> None:
        self._plans.clear()

    def resolve_names(self, provider: str, profile: str) -> tuple[str, str]:
        """The normalised provider and the full profile id (or "") of a request that names at least one of them.

        Raises InvalidArgument, ProviderUnknown.
        """
        if not provider and not profile:
            raise InvalidArgument("name a provider or a profile")
        if profile and ":" in profile:
            of_profile = self._known(split_id(profile)[0])
            if provider and self._known(provider) != of_profile:
                raise InvalidArgument(f"profile {profile[:80]!r} is for another provider than {provider[:80]!r}")
            return of_profile, f"{of_profile}:{split_id(profile)[1]}"
        known = self._known(provider)
        return known, f"{known}:{profile}" if profile else ""

    def _known(self, provider: str) -> str:
        known = self.catalog.normalise(provider)
        if known is None:
            shown = provider[:80]
            raise ProviderUnknown(f"provider {shown!r} is unknown: see `equabot models status`, or add it to providers")
        return known

    def choose(self, agent: str, provider: str, *, profile: str = "", session: str = "") -> Choice:
        """The profile that serves a request of the agent now.

        `provider` and `profile` are normalised. Raises PolicyDenied, ProfileNotFound, NoUsableProfile, ReauthRequired.
        """
        policy = self._policies.of(agent)
        if profile:
            policy.check_profile(agent, provider, profile)
            return Choice(self._named(agent, provider, profile), automatic=False)
        policy.check_provider(agent, provider)
        current = self.plan(agent, provider)
        candidate = self._of_session(current, (agent, session, provider)) if session else current.take()
        if candidate is None:
            raise self._nothing_usable(current, agent, provider)
        self._standings.touch((candidate.held.profile.agent, candidate.id), candidate)
        return Choice(candidate, automatic=True)

    def plan(self, agent: str, provider: str) -> Plan:
        """The agent's candidates of the provider, ranked."""
        now = self._clock.now()
        known = self._plans.get((agent, provider))
        if known is not None:
            if known.valid_until > now:
                return known
            self._standings.tick()
        policy = self._policies.of(agent)
        candidates = [
            candidate
            for _, candidate in self._standings.of(agent, provider)
            if policy.allows_profile(provider, candidate.id)
        ]
        order = explicit_order(provider, stored=self._orders.get((agent, provider)), configured=self._configured)
        made = self._plans[agent, provider] = plan(candidates, order=order, now=now)
        return made

    def _named(self, agent: str, provider: str, profile: str) -> Candidate:
        found = self._standings.find(agent, profile)
        if found is None:
            known = sorted(candidate.id for _, candidate in self._standings.of(agent, provider))[:10]
            raise ProfileNotFound(f"no profile {profile[:80]!r}; there is {', '.join(known) or 'none of this provider'}")
        key, candidate = found
        if not candidate.standing.usable:
            raise _unusable(f"profile {profile!r} cannot be used", [candidate], {profile: _why(candidate)})
        self._standings.touch(key, candidate)
        self.plan(agent, provider).used(profile)
        return candidate

    def _of_session(self, current: Plan, key: SessionKey) -> Candidate | None:
        now = self._clock.now()
        pinned, strict = self._pins.get(key, ("", False))
        if pinned:
            candidate = current.find(pinned)
            if candidate is not None and (strict or candidate.standing.cooling_until <= now):
                current.used(pinned)
                return candidate
            if strict:
                raise NoUsableProfile(
                    f"session is pinned to {pinned!r}, which cannot be used: unpin it",
                    metadata={pinned: current.reasons().get(pinned, "no source holds it")},
                )
        stuck = current.find(self._sticky.get(key, ""))
        if stuck is not None and stuck.standing.cooling_until <= now:
            current.used(stuck.id)
            return stuck
        candidate = current.take()
        if candidate is not None:
            _remember(self._sticky, key, candidate.id)
        return candidate

    def _nothing_usable(self, current: Plan, agent: str, provider: str) -> NoUsableProfile | ReauthRequired:
        candidates = [candidate for _, candidate in self._standings.of(agent, provider)]
        reasons = current.reasons()
        if not reasons:
            facts = self.catalog.providers[provider]
            names = ", ".join(name.name for name in facts.env_names[:2])
            hint = f"set {names} in the environment or in .env" if names else "add a profile"
            return NoUsableProfile(f"no credential for provider {provider!r}: {hint}")
        told = "; ".join(f"{profile}: {why}" for profile, why in list(reasons.items())[:5])
        return _unusable(f"no usable profile for provider {provider!r} ({told})", candidates, reasons)

    def statuses(self, agent: str, provider: str = "", *, session: str = "") -> list[ProfileStatus]:
        """The agent's candidates of one provider (or of every one it may use), in the order they would be tried, then those
        that cannot serve. Takes nothing. Raises ProviderUnknown, PolicyDenied."""
        policy = self._policies.of(agent)
        if provider:
            known = self._known(provider)
            policy.check_provider(agent, known)
            return self._statuses(agent, known, session)
        ordered = {ordered for of_agent, ordered in self._orders if of_agent == agent}
        allowed = sorted(p for p in self._standings.providers() | ordered if policy.allows_provider(p))
        return [status for p in allowed for status in self._statuses(agent, p, session)]

    def _statuses(self, agent: str, provider: str, session: str) -> list[ProfileStatus]:
        current = self.plan(agent, provider)
        now = self._clock.now()
        key = (agent, session, provider)
        pinned = self._pins.get(key, ("", False))[0] if session else ""
        wanted = [current.find(i) for i in (pinned, self._sticky.get(key, "") if session else "") if i]
        lead = next((c for c in wanted if c is not None and c.standing.cooling_until <= now), None)
        ordered = current.ordered()
        if lead is not None:
            ordered = [lead, *(c for c in ordered if c.id != lead.id)]
        reasons = {c.id: _why(c) for c in ordered} | current.reasons()
        url = self.catalog.providers[provider].base_url
        rows: list[ProfileStatus] = []
        for profile, why in reasons.items():
            found = self._standings.find(agent, profile)
            usable = profile not in current.reasons()
            if found is None:
                rows.append(ProfileStatus(id=profile, provider=provider, reason=why, base_url=url))
                continue
            rows.append(
                describe(
                    found[1],
                    reason=why,
                    next=usable and not rows,
                    usable=usable,
                    pinned=profile == pinned,
                    base_url=url,
                    now=now,
                )
            )
        return rows

    def forget_choices(self, profile: str) -> None:
        """Automatic choices of this profile end: it cools down, or is gone."""
        for key in [key for key, stuck in self._sticky.items() if stuck == profile]:
            del self._sticky[key]

    def pin(self, agent: str, session: str, provider: str, profile: str, *, strict: bool) -> None:
        """Makes the session try one profile first. Raises InvalidArgument, ProfileNotFound, PolicyDenied."""
        if not session:
            raise InvalidArgument("a pin needs a session")
        provider, profile = self.resolve_names(provider, profile)
        if not profile:
            raise InvalidArgument("a pin needs a profile")
        self._policies.of(agent).check_profile(agent, provider, profile)
        if self._standings.find(agent, profile) is None:
            raise ProfileNotFound(f"no profile {profile[:80]!r} to pin")
        key = (agent, session, provider)
        dropped = _remember(self._pins, key, (profile, strict))
        self._store.put_pin(key, (profile, strict))
        if dropped is not None:
            self._store.put_pin(dropped, None)

    def unpin(self, agent: str, session: str, provider: str) -> None:
        """Takes the session's pin away. Raises ProviderUnknown."""
        key = (agent, session, self._known(provider))
        if self._pins.pop(key, None) is not None:
            self._store.put_pin(key, None)

    def order(self, agent: str, provider: str) -> tuple[str, ...]:
        """The stored order override; empty for none."""
        self._policies.of(agent)
        return self._orders.get((agent, self._known(provider)), ())

    def set_order(self, agent: str, provider: str, profiles: Iterable[str]) -> tuple[str, ...]:
        """Stores (or, given none, clears) the override. Raises InvalidArgument for a profile of another provider,
        ProfileNotFound for one that no source holds."""
        self._policies.of(agent)
        provider = self._known(provider)
        wanted = tuple(dict.fromkeys(self.resolve_names(provider, profile)[1] for profile in profiles))
        missing = [profile for profile in wanted if self._standings.find(agent, profile) is None]
        if missing:
            raise ProfileNotFound(f"no profile {', '.join(repr(m[:80]) for m in missing)}: nothing was stored")
        if wanted:
            self._orders[agent, provider] = wanted
        else:
            self._orders.pop((agent, provider), None)
        self._store.put_order((agent, provider), wanted or None)
        self._plans.clear()
        return wanted


def _unusable(
    message: str, candidates: Iterable[Candidate], reasons: Mapping[str, str]
) -> NoUsableProfile | ReauthRequired:
    states = {candidate.standing.state for candidate in candidates}
    if states == {State.REAUTH_REQUIRED}:
        return ReauthRequired(message, metadata=reasons)
    return NoUsableProfile(message, metadata=reasons)


def _why(candidate: Candidate) -> str:
    return candidate.standing.reason or candidate.standing.state.value


def _remember(known: "OrderedDict[SessionKey, V]", key: SessionKey, value: V) -> SessionKey | None:
    """Keeps the newest; returns the key that had to go for it."""
    known[key] = value
    known.move_to_end(key)
    return known.popitem(last=False)[0] if len(known) > _SESSIONS_KEPT else None
