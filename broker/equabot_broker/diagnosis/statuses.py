"""What may be reported of a profile: names, states and instants, never material."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from equabot_broker.domain.profiles import State
from equabot_broker.domain.selection import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileStatus:
    """One candidate of an agent. Instants in seconds since the epoch, 0 for none; fields as in the wire's message."""

    id: str
    provider: str
    mode: str = ""
    source: str = ""
    state: str = State.MISSING.value
    reason: str = ""
    next: bool = False
    usable: bool = False
    pinned: bool = False
    label: str = ""
    expires_at: float = 0.0
    cooldown_until: float = 0.0
    disabled_until: float = 0.0
    disabled_reason: str = ""
    last_used_at: float = 0.0
    base_url: str = ""
    version: int = 0
    retry_at: float = 0.0
    model_cooldowns: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


def describe(
    candidate: Candidate, *, reason: str, is_next: bool, usable: bool, pinned: bool, base_url: str, now: float
) -> ProfileStatus:
    """The status of a profile that a source holds."""
    usage = candidate.usage
    profile = candidate.held.profile
    return ProfileStatus(
        id=profile.id,
        provider=profile.provider,
        mode=profile.mode.value,
        source=profile.source,
        state=candidate.standing.state.value,
        reason=reason,
        next=is_next,
        usable=usable,
        pinned=pinned,
        label="" if profile.secret is None else profile.secret.label(),
        expires_at=profile.expires_at or 0.0,
        cooldown_until=usage.cooldown_until if usage.cooldown_until > now else 0.0,
        disabled_until=usage.disabled_until if usage.disabled_until > now else 0.0,
        disabled_reason=usage.disabled_reason if usage.disabled_until > now else "",
        last_used_at=usage.last_used,
        base_url=base_url,
        version=candidate.held.version,
        retry_at=candidate.standing.returns_at,
        model_cooldowns=candidate.standing.models,
    )
