"""Ends that are declared next to a credential, and the value for which each was set.

An annotation of a Secret, or `profiles.<id>.expires_at`, stays when the value is replaced. An end that was set for an earlier
value is not applied: it would silently expire the new value.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from equabot_broker.domain.profiles import DeclaredEnd, Profile
from equabot_broker.domain.secret_value import SecretValue


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """A declared end (seconds since the epoch), and a keyed digest of the value with which it was first seen.

    An empty digest means an earlier value that the broker did not see.
    """

    at: float
    digest: bytes


def declare(at: float | None, where: str, *, own: float | None = None, older: bool = False) -> DeclaredEnd | None:
    """The declared end at that place, or None."""
    return None if at is None else DeclaredEnd(at=at, where=where, own=own, older=older)


def judge(profile: Profile, seen: FirstSeen | None, digest: Callable[[SecretValue], bytes]) -> tuple[Profile, FirstSeen | None]:
    """The profile with the end that applies, and the observation to store.

    An earlier observation decides; without one, `declared.older` does. A login that can be refreshed keeps its end.
    """
    declared = profile.declared
    if declared is None or profile.renews:
        return profile, None
    if profile.secret is None:
        return profile, seen
    value = digest(profile.secret)
    if seen is None or seen.at != declared.at:
        seen = FirstSeen(declared.at, b"" if declared.older else value)
    if seen.digest == value:
        return profile, seen
    until = _written(declared.at)
    doubt = f"its end {until} ({declared.where}) was set for an earlier value and is not applied: correct or remove it"
    return replace(profile, expires_at=declared.own, doubt=doubt), seen


def _written(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f}"
