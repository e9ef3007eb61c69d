"""Credentials: the usable form of a profile now. What it is worth, and how a request or a process carries it."""

from dataclasses import dataclass, field
from typing import Final

from broker.domain.cooldowns import Usage
from broker.domain.material import Held
from broker.domain.profiles import SERVING_STATES, State
from broker.domain.provider import Mode, Provider
from broker.domain.secret_value import SecretValue

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a profile is worth: its state, why, and until when that judgement holds (seconds since the epoch). The words of
    `reason` age sooner, and do not count when two are compared.

    `usable`: it can serve a request, and health may count on it. A cooldown leaves it so, for others only come first; a billing
    disable does not. `cooling_until` is when either ends, 0 for now.
    """

    state: State
    reason: str = field(compare=False)
    usable: bool
    cooling_until: float
    valid_until: float


def assess(held: Held, usage: Usage, *, now: float, warn_within: float) -> Standing:
    """What the profile is worth at `now`."""
    state, reason, boundary = _state(held, usage, now=now, warn_within=warn_within)
    usable = state in SERVING_STATES
    cooling = usage.cooling_until(now)
    if usage.disabled_until > now:
        usable = False
        reason = f"disabled ({usage.disabled_reason or 'billing'}) for {_span(usage.disabled_until - now)}"
    elif cooling and usable:
        reason = f"in cooldown for {_span(cooling - now)}"
    ends = (end for end in (usage.cooldown_until, usage.disabled_until) if end > now)
    return Standing(state, reason, usable, cooling, min(boundary, min(ends, default=NEVER)))


def _state(held: Held, usage: Usage, *, now: float, warn_within: float) -> tuple[State, str, float]:
    profile = held.profile
    if profile.secret is None:
        return State.INVALID, profile.fault or "malformed", NEVER
    if held.stale_until is not None and now >= held.stale_until:
        return State.MISSING, f"{profile.source} has been unreadable for longer than the stale budget", NEVER
    stale_end = NEVER if held.stale_until is None else held.stale_until
    if usage.rejected and usage.rejected_version == held.version:
        return State.REJECTED, usage.rejected, stale_end
    if profile.expires_at is None:
        return State.OK, "", stale_end
    left = profile.expires_at - now
    if left <= 0:
        return State.EXPIRED, f"expired {_span(-left)} ago", stale_end
    # The very instant that ends the judgement is compared, so that no rounding brings the same one back at its end.
    warned_at = profile.expires_at - warn_within
    if now >= warned_at:
        return State.EXPIRING, f"expires in {_span(left)}", min(profile.expires_at, stale_end)
    return State.OK, "", min(warned_at, stale_end)


def left(held: Held, *, now: float) -> float | None:
    """How many seconds the credential will still serve without anybody's help; None: it does not say, or is refreshed."""
    profile = held.profile
    return None if profile.expires_at is None or profile.refresh is not None else profile.expires_at - now


def _span(seconds: float) -> str:
    """A duration for a person: its largest two units."""
    whole = max(int(seconds), 0)
    for size, name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{name}{rest}{small_name}" if rest else f"{whole // size}{name}"
    return f"{whole}s"


def headers(provider: Provider, mode: Mode, secret: SecretValue) -> dict[str, str]:
    """What a request must carry."""
    form = provider.header_form(mode)
    return {form.name: form.prefix + secret.reveal(), **form.extra}


def sdk_env(provider: Provider, mode: Mode, secret: SecretValue, base_url: str = "") -> dict[str, str]:
    """What a process must be given so that the vendor's SDK works; `base_url` only where it is not the SDK's own."""
    name = provider.sdk_env_name(mode)
    env = {name: secret.reveal()} if name else {}
    if base_url and provider.base_url_env:
        env[provider.base_url_env] = base_url
    return env
