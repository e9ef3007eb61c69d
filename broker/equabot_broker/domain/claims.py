"""Decides which place owns a profile id when several places have a profile with that id.

The configuration decides first: the place that it names for the id, then the order of the sources. Within one source, different
people may write the units (subdirectories, Secrets). The id then belongs to

1. the unit with that name: `anthropic:team` belongs to `team`, and no content of another unit can claim it;
2. the unit that held it first, also across a restart or an absence;
3. the first unit by name.

The other profiles are shadowed and reported. A later expiry wins only between versions of the same login: the login of a tool
and its copy, or one Secret that two sources deliver.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.profiles import FOREIGN_LOGINS, Profile, split_id

ProfileLocation = tuple[str, str]
"""The name of a source, and a unit in it."""

PLACES_MAX: Final = 8
"""The number of places that are remembered for an id, the first ones."""


@dataclass(frozen=True, slots=True)
class IdClaim:
    """A profile with its place. `rank` is the position of its source in the order of the sources."""

    profile: Profile
    source: str
    unit: str
    rank: int

    @property
    def place(self) -> ProfileLocation:
        """The place of the profile."""
        return self.source, self.unit

    @property
    def named(self) -> bool:
        """Whether the id has the name of its unit, or of its source if the unit has no name."""
        return split_id(self.profile.id)[1] == (self.unit or self.source.partition(" ")[0])


def owner_of(claims: Sequence[IdClaim], places: Sequence[ProfileLocation]) -> IdClaim:
    """The claim that owns the id. `places` have held it, oldest first."""
    seniority = {place: number for number, place in enumerate(places)}

    def precedence(claim: IdClaim) -> tuple[bool, int, bool, int, str]:
        held = seniority.get(claim.place, len(seniority))
        return not claim.profile.configured, claim.rank, not claim.named, held, claim.unit

    first, *others = sorted(claims, key=precedence)
    asked = {first.rank}
    for other in others:  # the best claim of each further source
        if other.rank not in asked:
            asked.add(other.rank)
            if _is_same_login(other.profile, first.profile) and outlives(other.profile, first.profile):
                first = other
    return first


def outlives(one: Profile, other: Profile) -> bool:
    """Whether it ends later, or at the same time and can be refreshed."""
    if other.workload:  # a workload identity is never replaced by another credential
        return False
    if one.secret is None or other.secret is None or one.expires_at is None or other.expires_at is None:
        return False

    return (one.expires_at, one.refresh is not None) > (other.expires_at, other.refresh is not None)


def _is_same_login(one: Profile, other: Profile) -> bool:
    return not other.configured and (one.id in FOREIGN_LOGINS or one.unit == other.unit)


def with_place(places: Sequence[ProfileLocation], place: ProfileLocation) -> tuple[ProfileLocation, ...]:
    """The places that have held an id, including this one."""
    return tuple(places) if place in places or len(places) >= PLACES_MAX else (*places, place)
