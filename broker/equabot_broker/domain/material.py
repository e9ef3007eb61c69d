"""Material: the current content of the sources. An update replaces a whole bundle, including profiles that vanished."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.claims import IdClaim, ProfileLocation, outlives, owner_of
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.masking import is_misplaced_key, masked
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import Profile

_NAMED_LIKE_A_KEY: Final = "has a name that looks like a key and is not used: rename it, and replace that key"


@dataclass(frozen=True, slots=True)
class SourceFault:
    """A fault of a source: where, what, and what to do. It contains no secret.

    `since` is its start in seconds since the epoch. It is None for a fault in a unit that can be read.
    """

    where: str
    message: str
    since: float | None = None

    def __str__(self) -> str:
        if self.since is None:
            return self.message
        return f"{self.message} (since {datetime.fromtimestamp(self.since, UTC):%Y-%m-%dT%H:%M:%SZ})"


@dataclass(frozen=True, slots=True)
class Unit:
    """A bundle that changes as a whole: a file, a directory, a Secret, the environment.

    A profile store of an agent also has an `owner`, the agent; `usage` by profile id, for each of its profiles; and `orders`
    by provider. `notes` are information, not faults.
    """

    name: str
    profiles: tuple[Profile, ...] = ()
    faults: tuple[SourceFault, ...] = ()
    owner: str = ""
    usage: Mapping[str, Usage] = field(default_factory=lambda: MappingProxyType({}))
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[SourceFault, ...] = ()


ReadUnit = Unit | str
"""A unit, or the reason why it cannot be read."""


@dataclass(frozen=True, slots=True)
class UnitsListed:
    """The whole source. Units in `failed` (name → reason) could not be read: their last good content stays, as stale."""

    units: tuple[Unit, ...]
    failed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class UnitChanged:
    """One unit is new or has changed."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class UnitRemoved:
    """One unit is gone, with its profiles."""

    unit: str


@dataclass(frozen=True, slots=True)
class SourceUnavailable:
    """The source cannot be read; `fault` says why and what to do. Its last good content stays, as stale."""

    fault: str


SourceEvent = UnitsListed | UnitChanged | UnitRemoved | SourceUnavailable


@dataclass(frozen=True, slots=True)
class SourceState:
    """The content of one source, and whether it is stale.

    `synced_at` is when it was last read in full, or None. `stale_since` is set while the source is unavailable.
    `stale_units` maps single units that cannot be read to their fault and its start.
    """

    name: str
    units: Mapping[str, Unit] = field(default_factory=lambda: MappingProxyType({}))
    synced_at: float | None = None
    stale_since: float | None = None
    fault: str = ""
    stale_units: Mapping[str, tuple[str, float]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def attempted(self) -> bool:
        """Whether the first attempt to read the source is over: it was read, or it has a fault."""
        return self.synced_at is not None or bool(self.fault)

    def faults(self) -> list[SourceFault]:
        """All current faults."""
        found = [SourceFault(self.name, self.fault, self.stale_since)] if self.fault else []
        found += [SourceFault(f"{self.name} {unit}".rstrip(), *stale) for unit, stale in self.stale_units.items()]
        return found + [fault for unit in self.units.values() for fault in unit.faults]

    def notes(self) -> list[SourceFault]:
        """All current notes."""
        return [note for unit in self.units.values() for note in unit.notes]


def admitted(unit: Unit) -> Unit:
    """The unit without names that look like a key. Such a name would appear in logs, metrics and lists.

    All names enter the broker here. A profile with such a name is dropped and reported as a fault. A unit with such a name
    keeps only its faults.
    """
    hidden = [profile for profile in unit.profiles if is_misplaced_key(profile.id) or is_misplaced_key(profile.unit)]
    faults = [SourceFault(masked(fault.where), masked(fault.message), fault.since) for fault in unit.faults]
    faults += [SourceFault(masked(profile.origin), f"{masked(profile.origin)} {_NAMED_LIKE_A_KEY}") for profile in hidden]
    if is_misplaced_key(unit.name):
        name = masked(unit.name)
        return Unit(name, faults=tuple(dict.fromkeys(faults or [SourceFault(name, f"{name} {_NAMED_LIKE_A_KEY}")])))
    return replace(
        unit,
        profiles=tuple(_presentable(profile) for profile in unit.profiles if profile not in hidden),
        faults=tuple(faults),
        usage={name: used for name, used in unit.usage.items() if not is_misplaced_key(name)},
        orders={provider: tuple(map(masked, order)) for provider, order in unit.orders.items()},
    )


def _presentable(profile: Profile) -> Profile:
    if not any(map(is_misplaced_key, (profile.origin, profile.fault, profile.email, profile.reauth))):
        return profile
    return replace(
        profile,
        origin=masked(profile.origin),
        fault=masked(profile.fault),
        email="" if is_misplaced_key(profile.email) else profile.email,
        reauth=masked(profile.reauth),
    )


def _admitted(event: SourceEvent) -> SourceEvent:
    match event:
        case UnitsListed(units, failed):
            return UnitsListed(tuple(map(admitted, units)), {masked(name): masked(why) for name, why in failed.items()})
        case UnitChanged(unit):
            return UnitChanged(admitted(unit))
        case UnitRemoved(name):
            return UnitRemoved(masked(name))
        case SourceUnavailable(fault):
            return SourceUnavailable(masked(fault))


def apply(state: SourceState, event: SourceEvent, *, now: float) -> SourceState:
    """The source after the event."""
    match _admitted(event):
        case UnitsListed(units, failed):
            held = {name: state.units[name] for name in failed if name in state.units}
            since = now if state.stale_since is None else state.stale_since
            stale = {name: (why, state.stale_units.get(name, ("", since))[1]) for name, why in failed.items()}
            fresh = {unit.name: unit for unit in units}
            return SourceState(name=state.name, units=held | fresh, synced_at=now, stale_units=stale)
        case UnitChanged(unit):
            stale = {name: fault for name, fault in state.stale_units.items() if name != unit.name}
            return replace(state, units={**state.units, unit.name: unit}, stale_units=stale)
        case UnitRemoved(name):
            kept = {key: unit for key, unit in state.units.items() if key != name}
            stale = {key: fault for key, fault in state.stale_units.items() if key != name}
            return replace(state, units=kept, stale_units=stale)
        case SourceUnavailable(fault):
            since = state.stale_since if state.stale_since is not None else now
            return replace(state, stale_since=since, fault=fault)


@dataclass(frozen=True, slots=True)
class HeldProfile:
    """A profile in effect.

    `rank` is the position of its source in the order of the sources. `tail`: that source belongs to the last tier (the
    environment and `.env`). `version` grows when the material changes. After `stale_until` the profile does not serve.
    """

    profile: Profile
    rank: int
    version: int
    tail: bool = False
    stale_until: float | None = None


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A profile that another one with the same id hides.

    `older`: it is a version of the same login that ends sooner. `contested`: two units of one source claim the id.
    Otherwise the other source comes first.
    """

    profile: Profile
    by: Profile
    older: bool = False
    contested: bool = False


@dataclass(frozen=True, slots=True)
class Material:
    """All profiles in effect, by agent ("" for all agents) and id.

    `unread` are the sources that have never been read in full: they may have further profiles. `left_over` are copies of
    logins that no longer exist: they do not serve. `usage` is the usage in the profile stores, by the same keys. `orders`
    come from the stores too, by agent and provider: the profiles of `main` are for all agents, its orders only for `main`.
    """

    held: Mapping[tuple[str, str], HeldProfile] = field(default_factory=lambda: MappingProxyType({}))
    shadowed: tuple[Shadowed, ...] = ()
    unread: tuple[str, ...] = ()
    left_over: tuple[Profile, ...] = ()
    usage: Mapping[tuple[str, str], Usage] = field(default_factory=lambda: MappingProxyType({}))
    orders: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


def merge(
    sources: Sequence[SourceState],
    *,
    version: Callable[[Profile], int],
    stale_budget: float,
    tail: frozenset[str],
    places: Callable[[tuple[str, str]], Sequence[ProfileLocation]] = lambda _: (),
    judged: Callable[[Profile], Profile] = lambda profile: profile,
) -> Material:
    """The profiles in effect: for each id the one that `domain.claims` selects.

    `version` numbers the material of a profile: equal material has equal numbers, newer material a greater one. `places`
    returns the places that held an id (by agent and id), oldest first. `judged` sets the end that applies to a profile.
    `tail` are the names of the sources in the last tier.
    """
    claims: dict[tuple[str, str], list[IdClaim]] = {}
    left_over: list[Profile] = []
    usage: dict[tuple[str, str], Usage] = {}
    orders: dict[tuple[str, str], tuple[str, ...]] = {}
    for rank, source in enumerate(sources):
        for _, unit in sorted(source.units.items()):
            for profile in unit.profiles:
                if profile.copied_from and _is_left_over(profile, sources):
                    left_over.append(profile)
                    continue
                claims.setdefault((profile.agent, profile.id), []).append(IdClaim(profile, source.name, unit.name, rank))
            if unit.owner:
                usage |= {("" if unit.owner == MAIN else unit.owner, name): used for name, used in unit.usage.items()}
                orders |= {(unit.owner, provider): order for provider, order in unit.orders.items() if order}
    held: dict[tuple[str, str], HeldProfile] = {}
    shadowed: list[Shadowed] = []
    for key, made in claims.items():
        first = made[0] if len(made) == 1 else owner_of(made, places(key))
        source = sources[first.rank]
        until = _stale_until(source, first.unit, stale_budget)
        profile = judged(first.profile)
        # Only profiles in effect get a number, so that a number shows that a profile was in effect.
        held[key] = HeldProfile(profile, first.rank, version(profile), source.name in tail, until)
        shadowed += (_shadowed(claim, first) for claim in made if claim is not first)
    unread = tuple(source.name for source in sources if source.synced_at is None)
    return Material(held, tuple(shadowed), unread, tuple(left_over), usage, orders)


def _is_left_over(copy: Profile, sources: Sequence[SourceState]) -> bool:
    """Whether the source of the copy was read and no longer holds the login."""
    named = [source for source in sources if copy.copied_from in (source.name, source.name.partition(" ")[0])]
    read = bool(named) and all(source.synced_at is not None and source.stale_since is None for source in named)
    return read and not any(
        profile.id == copy.id for source in named for unit in source.units.values() for profile in unit.profiles
    )


def _stale_until(source: SourceState, unit: str, budget: float) -> float | None:
    since = source.stale_since if source.stale_since is not None else source.stale_units.get(unit, ("", None))[1]
    return None if since is None else since + budget


def _shadowed(claim: IdClaim, first: IdClaim) -> Shadowed:
    contested = claim.rank == first.rank and claim.unit != first.unit
    older = not contested and outlives(first.profile, claim.profile)
    return Shadowed(claim.profile, first.profile, older=older, contested=contested)


def changed(before: Material, after: Material) -> set[tuple[str, str]]:
    """The profiles that were added, removed or changed, by agent and id."""
    keys = before.held.keys() | after.held.keys()
    return {key for key in keys if before.held.get(key) != after.held.get(key)}
