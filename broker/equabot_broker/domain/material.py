"""Material: what the sources hold now. The unit of an update is a whole bundle: what vanished from it is gone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.claims import IdClaim, ProfileLocation, outlives, rightful
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.masking import is_misplaced_key, masked
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import Profile

_NAMED_LIKE_A_KEY: Final = "has a name that looks like a key, so it is not used: rename it, and replace that key"


@dataclass(frozen=True, slots=True)
class SourceFault:
    """Something wrong: where, what, and what to do. Never a secret's bytes. `since`, in seconds since the epoch, is when it
    was first so; None where that is not known, as of what is wrong inside a unit that can be read."""

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

    An agent's profile store also has an `owner`, the agent, and what it remembers: `usage` by profile id, with every profile of
    it, and `orders` by provider. `notes` are worth knowing, and nothing wrong.
    """

    name: str
    profiles: tuple[Profile, ...] = ()
    faults: tuple[SourceFault, ...] = ()
    owner: str = ""
    usage: Mapping[str, Usage] = field(default_factory=lambda: MappingProxyType({}))
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[SourceFault, ...] = ()


ReadUnit = Unit | str
"""A unit, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class UnitsListed:
    """The source in full. Units in `failed` (name → why) could not be read: their last good content stays, as stale."""

    units: tuple[Unit, ...]
    failed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class UnitChanged:
    """One unit, new or replaced."""

    unit: Unit


@dataclass(frozen=True, slots=True)
class UnitRemoved:
    """One unit is gone, and its profiles with it."""

    unit: str


@dataclass(frozen=True, slots=True)
class SourceUnavailable:
    """The source cannot be read: what, where, what to do. Its last good content stays, as stale."""

    fault: str


SourceEvent = UnitsListed | UnitChanged | UnitRemoved | SourceUnavailable


@dataclass(frozen=True, slots=True)
class SourceState:
    """What one source holds and how sure we are of it.

    `synced_at` is when it was last read in full (None: never). `stale_since` is set while the source is down, and
    `stale_units` names the units that alone could not be read, each with its fault and since when.
    """

    name: str
    units: Mapping[str, Unit] = field(default_factory=lambda: MappingProxyType({}))
    synced_at: float | None = None
    stale_since: float | None = None
    fault: str = ""
    stale_units: Mapping[str, tuple[str, float]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def settled(self) -> bool:
        """Whether the source has been read, or is known to be unreadable: there is nothing to wait for."""
        return self.synced_at is not None or bool(self.fault)

    def faults(self) -> list[SourceFault]:
        """Everything wrong in it now."""
        found = [SourceFault(self.name, self.fault, self.stale_since)] if self.fault else []
        found += [SourceFault(f"{self.name} {unit}".rstrip(), *stale) for unit, stale in self.stale_units.items()]
        return found + [fault for unit in self.units.values() for fault in unit.faults]

    def notes(self) -> list[SourceFault]:
        """Everything in it that is worth knowing."""
        return [note for unit in self.units.values() for note in unit.notes]


def admitted(unit: Unit) -> Unit:
    """The unit without any name that looks like a key. A key in the place of a name would be in every place that
    names profiles. All names enter here, so all those places are safe.

    A profile of such a name is not there, and a fault says so; a unit of such a name holds nothing else.
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
    """A profile in effect. `rank` is its source's place in the order of sources, `tail` whether that source belongs to the
    last tier of a choice (the environment and `.env`); `version` grows when its material changes; after `stale_until`
    its source has been away for too long.
    """

    profile: Profile
    rank: int
    version: int
    tail: bool = False
    stale_until: float | None = None


@dataclass(frozen=True, slots=True)
class Shadowed:
    """A profile that another one of the same id hides: from a source that comes first, or because it is `older`, a version of
    the same login that ends sooner. `contested`: two units of one source claim the id."""

    profile: Profile
    by: Profile
    older: bool = False
    contested: bool = False


@dataclass(frozen=True, slots=True)
class Material:
    """All profiles in effect, by agent ("" holds those of every agent) and id. `unread` names the sources that have never been
    read in full: a profile that is not here may be there. `left_over` are copies of logins that are gone: they do not serve.

    `usage` is what the profile stores remember, by the same keys, of every profile that is in one. `orders` are theirs as well,
    by agent and provider: `main`'s profiles are for everybody, its orders are its own.
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
    """The profiles in effect: of each id the one that `domain.claims` says.

    `version` numbers a profile's material: equal numbers for equal material, greater ones for newer. `places` says where an id,
    by agent and id, was held, the first place first. `judged` gives a profile in effect the end that counts.
    Sources whose name is in `tail` belong to the last tier of a choice.
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
        first = made[0] if len(made) == 1 else rightful(made, places(key))
        source = sources[first.rank]
        until = _stale_until(source, first.unit, stale_budget)
        profile = judged(first.profile)
        # Only what is in effect is numbered: whatever has a number was in effect.
        held[key] = HeldProfile(profile, first.rank, version(profile), source.name in tail, until)
        shadowed += (_shadowed(claim, first) for claim in made if claim is not first)
    unread = tuple(source.name for source in sources if source.synced_at is None)
    return Material(held, tuple(shadowed), unread, tuple(left_over), usage, orders)


def _is_left_over(copy: Profile, sources: Sequence[SourceState]) -> bool:
    """Whether the source of which it is a copy was read, and holds the login no more."""
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
    """Which profiles came, went or differ, by agent and id. Only names: values stay where they are."""
    keys = before.held.keys() | after.held.keys()
    return {key for key in keys if before.held.get(key) != after.held.get(key)}
