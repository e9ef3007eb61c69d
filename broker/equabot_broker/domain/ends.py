"""Ends that are declared next to a credential: which value each was set for.

An annotation of a Secret, or `profiles.<id>.expires_at`, stays when the value is replaced. An end that was set for another
value is not applied: without a word the new value would be expired for ever.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from equabot_broker.domain.profiles import DeclaredEnd, Profile
from equabot_broker.domain.secret_value import SecretValue


@dataclass(frozen=True, slots=True)
class FirstSeen:
    """A declared end (seconds since the epoch) and a keyed digest of the value with which it was seen first; an empty one
    stands for a value that was there earlier and was not seen."""

    at: float
    digest: bytes


def declare(at: float | None, where: str, *, own: float | None = None, older: bool = False) -> DeclaredEnd | None:
    """The end that is declared at that place, if any is."""
    return None if at is None else DeclaredEnd(at=at, where=where, own=own, older=older)


def judge(profile: Profile, seen: FirstSeen | None, digest: Callable[[SecretValue], bytes]) -> tuple[Profile, FirstSeen | None]:
    """The profile with the end that counts, and what to remember of its declared end.

    What was seen before decides; where nothing was, the place's own word does. A login that renews keeps the end as written.
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
