"""Whose a profile id is, where several places hold a profile of it.

The operator's word goes first: a place that the configuration names for the id, then the order of the sources. Between units of
one source (subdirectories, Secrets), of which another person may write each, the id belongs to

1. the unit that is called so: `anthropic:team` to `team`, which no content of another unit can claim;
2. the unit that held it first, also over a restart, and also where it was gone for a while;
3. the first unit by name.

The others are shadowed, and said. A later expiry makes another profile of the id better only where it is the same login by what
the broker knows: a tool's login and its copy, or one Secret that comes by two ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.profiles import FOREIGN_LOGINS, Profile, split_id

ProfileLocation = tuple[str, str]
"""A source's name, and a unit of it."""

PLACES_MAX: Final = 8
"""Places that are remembered of an id: the first ones to hold it."""


@dataclass(frozen=True, slots=True)
class IdClaim:
    """A profile, and where it is: the rank of its source in the order of sources, and the unit."""

    profile: Profile
    source: str
    unit: str
    rank: int

    @property
    def place(self) -> ProfileLocation:
        """Where it is."""
        return self.source, self.unit

    @property
    def named(self) -> bool:
        """Whether the id is that of its unit, or of its source for a unit without a name."""
        return split_id(self.profile.id)[1] == (self.unit or self.source.partition(" ")[0])


def rightful(claims: Sequence[IdClaim], places: Sequence[ProfileLocation]) -> IdClaim:
    """Whose the id is. `places` have held it, the first one first."""
    seniority = {place: number for number, place in enumerate(places)}

    def precedence(claim: IdClaim) -> tuple[bool, int, bool, int, str]:
        held = seniority.get(claim.place, len(seniority))
        return not claim.profile.configured, claim.rank, not claim.named, held, claim.unit

    first, *others = sorted(claims, key=precedence)
    asked = {first.rank}
    for other in others:  # of each further source the one that it would be
        if other.rank not in asked:
            asked.add(other.rank)
            if _is_same_login(other.profile, first.profile) and outlives(other.profile, first.profile):
                first = other
    return first


def outlives(one: Profile, other: Profile) -> bool:
    """Whether it ends later, or as late and can be refreshed."""
    if other.workload:  # which is never any other credential
        return False
    if one.secret is None or other.secret is None or one.expires_at is None or other.expires_at is None:
        return False
    # Of two that end together, the one that can be refreshed is the better one.
    return (one.expires_at, one.refresh is not None) > (other.expires_at, other.refresh is not None)


def _is_same_login(one: Profile, other: Profile) -> bool:
    return not other.configured and (one.id in FOREIGN_LOGINS or one.unit == other.unit)


def with_place(places: Sequence[ProfileLocation], place: ProfileLocation) -> tuple[ProfileLocation, ...]:
    """The places that have held an id, with this one."""
    return tuple(places) if place in places or len(places) >= PLACES_MAX else (*places, place)
