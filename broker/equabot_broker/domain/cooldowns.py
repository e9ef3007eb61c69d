"""Cooldowns: how failures disable a profile for a while, and how it recovers. The rules are those of OpenClaw, with fixes.

Failures put a profile in cooldown for 1, 5, 25, 60 minutes by count. A first billing failure causes a cooldown, because the
request may have been too large. A billing failure after that cooldown disables the profile for 5 hours, doubling up to 24.
The `retry-after` of the provider overrides these times. A success clears everything. Counters restart at zero after a day
without failures, and after a cooldown has ended: one 429 after a quiet hour costs a minute, not an hour. Only the count of
billing failures is kept after the cooldown: without it the doubling would never start.

A rejected credential is tried again after a minute. Each further rejection doubles this time, up to an hour.

One event counts once: a failure of a request from before a cooldown is part of that cooldown (`is_old`). A failure that names
a model causes a cooldown for that model alone, unless it is about the account (ADR 27).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

MINUTE = 60.0
HOUR = 3600.0
MODELS_MOST = 32
"""The number of models per profile with a cooldown: callers can send any model name."""
_SPREAD = 0.2
"""The largest part of a delay that jitter subtracts."""


class Outcome(StrEnum):
    """The kind of a provider's answer to a request."""

    OK = "ok"
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    BILLING = "billing"
    TIMEOUT = "timeout"
    FORMAT = "format"


@dataclass(frozen=True, slots=True)
class ModelCooldown:
    """The cooldown of a profile for one model, with the number of failures in a row. Instants in seconds since the epoch."""

    until: float
    errors: int = 1
    last_failure: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CooldownOptions:
    """Durations in seconds."""

    billing_backoff: float = 5 * HOUR
    billing_backoff_by_provider: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    billing_max: float = 24 * HOUR
    failure_window: float = 24 * HOUR
    retry_after_max: float = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The history of a profile's use. Instants are in seconds since the epoch; 0 means never.

    `rejected` is why the provider rejected the credential of version `rejected_version`. It was rejected `rejections` times
    in a row, and may be tried again from `rejected_until` on. `models` maps a model to its own cooldown. `version` is the
    version of the material that was used, or 0 if it is unknown; a comparison ignores it.
    """

    last_used: float = 0.0
    cooldown_until: float = 0.0
    disabled_until: float = 0.0
    disabled_reason: str = ""
    error_count: int = 0
    failure_counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    last_failure: float = 0.0
    rejected: str = ""
    rejected_version: int = 0
    rejected_until: float = 0.0
    rejections: int = 0
    models: Mapping[str, ModelCooldown] = field(default_factory=lambda: MappingProxyType({}))
    version: int = field(default=0, compare=False)

    @property
    def clean(self) -> bool:
        """Whether there is no cooldown, disable, rejection or count."""
        return self == Usage(last_used=self.last_used)

    def model_until(self, model: str) -> float:
        """The end of the cooldown for this model, or 0."""
        cooling = self.models.get(model)
        return 0.0 if cooling is None else cooling.until

    def rejects(self, version: int, now: float) -> bool:
        """Whether the credential of this version was rejected and must not be tried again yet."""
        return bool(self.rejected) and self.rejected_version == version and now < self.rejected_until

    def cooling(self, now: float) -> bool:
        """Whether it is in cooldown or disabled."""
        return self.cooldown_until > now or self.disabled_until > now

    def cooling_until(self, now: float) -> float:
        """The end of the cooldown or disable, or 0."""
        until = max(self.cooldown_until, self.disabled_until)
        return until if until > now else 0.0


def obstacles(usage: Usage, version: int, *, now: float) -> list[str]:
    """The obstacles of a profile with this version of its material, as names of the API."""
    cooling = usage.cooldown_until > now or any(met.until > now for met in usage.models.values())
    rejected = bool(usage.rejected) and usage.rejected_version == version
    words = (("cooldown", cooling), ("disable", usage.disabled_until > now), ("rejection", rejected))
    return [word for word, holds in words if holds]


def is_old(usage: Usage, *, now: float, began: float | None = None, earliest: float | None = None, model: str = "") -> bool:
    """Whether a failed request was sent before the current cooldown began, so that its failure is part of that cooldown.

    `began` is when the request was sent. If that is unknown, `earliest` may be a lower bound for it. A failure during a
    cooldown is then old, unless the request cannot have been sent before that cooldown.
    """
    scopes = [(usage.last_failure, max(usage.cooldown_until, usage.disabled_until))]
    if model in usage.models:
        scopes.append((usage.models[model].last_failure, usage.models[model].until))
    if began is not None:
        return any(began < last for last, _ in scopes)
    return any(until > now and (earliest is None or earliest <= last) for last, until in scopes)


def succeeded(usage: Usage, *, now: float, model: str = "") -> Usage:
    """The usage after a success: everything is cleared, except for models other than `model`."""
    others = {name: cooling for name, cooling in usage.models.items() if name != model}
    after = Usage(last_used=max(usage.last_used, now))
    return replace(after, models=others, version=usage.version) if others else after


def rejected(usage: Usage, reason: str, *, version: int, now: float, chance: float = 0.0) -> Usage:
    """The usage after the provider rejected the credential. New material clears the rejection, and so does a success.

    `chance` in [0, 1) shortens the delay, so that many brokers do not try at the same time.
    """
    counted = _count(usage, Outcome.AUTH, now=now, window=24 * HOUR)
    again = bool(usage.rejected) and usage.rejected_version == version
    times = usage.rejections + 1 if again else 1
    wait = min(MINUTE * 2.0 ** min(times - 1, 10), HOUR) * (1 - _SPREAD * chance)
    return replace(
        counted, rejected=reason, rejected_version=version, rejected_until=now + wait, rejections=times, version=version
    )


def accepted(usage: Usage) -> Usage:
    """The usage after the provider accepted the credential: this clears only the rejection."""
    return replace(usage, rejected="", rejected_version=0, rejected_until=0.0, rejections=0)


def cooled(usage: Usage, *, now: float, version: int = 0) -> Usage:
    """The usage after a failure that is not classified yet: a cooldown of a minute that is not counted."""
    until = max(usage.cooldown_until, now + MINUTE)
    return replace(usage, cooldown_until=until, last_failure=now, version=version or usage.version)


def failed(
    usage: Usage,
    outcome: Outcome,
    *,
    provider: str,
    now: float,
    options: CooldownOptions,
    retry_after: float | None = None,
    proven: bool = False,
    model: str = "",
    version: int = 0,
) -> Usage:
    """The usage after a failure. FORMAT changes nothing: another credential would get the same answer.

    BILLING changes nothing during the cooldown of an earlier one, unless it is `proven`: even the smallest request got it.
    BILLING always applies to all models.
    """
    billing = outcome is Outcome.BILLING
    known = usage.failure_counts.get(Outcome.BILLING, 0) if billing else 0
    if outcome in (Outcome.OK, Outcome.FORMAT) or (known and usage.cooling(now) and not proven):
        return usage
    usage = replace(usage, version=version or usage.version)
    if model and not billing:
        return _failed_for_model(usage, model, now=now, retry_after=retry_after, options=options)
    counted = _count(usage, outcome, now=now, window=options.failure_window)
    times = counted.failure_counts[outcome] - (0 if proven and not known else 1)
    if billing and times:
        first = options.billing_backoff_by_provider.get(provider, options.billing_backoff)
        table = min(first * 2.0 ** min(times - 1, 16), options.billing_max)
        until = now + _wait(table, retry_after, options)
        return replace(counted, disabled_until=until, disabled_reason=outcome.value)
    return replace(counted, cooldown_until=now + _wait(_table(counted.error_count), retry_after, options))


def _failed_for_model(usage: Usage, model: str, *, now: float, retry_after: float | None, options: CooldownOptions) -> Usage:
    """Above the limit, the cooldowns that end first are dropped."""
    before = usage.models.get(model)
    errors = before.errors + 1 if before is not None and before.until > now else 1
    cooling = ModelCooldown(now + _wait(_table(errors), retry_after, options), errors, now)
    others = {name: other for name, other in usage.models.items() if name != model}
    kept = sorted(others, key=lambda name: others[name].until)[-(MODELS_MOST - 1) :]
    return replace(usage, models={**{name: others[name] for name in kept}, model: cooling})


def shifted(usage: Usage, by: float, *, now: float) -> Usage:
    """The usage after the wall clock moved `by` seconds to `now`: active cooldowns keep their remaining time."""
    before = now - by
    instants = (usage.cooldown_until, usage.disabled_until, usage.rejected_until)
    cooldown, disabled, rejected = (at + by if at > before else at for at in instants)
    models = {
        name: replace(cooling, until=cooling.until + by) if cooling.until > before else cooling
        for name, cooling in usage.models.items()
    }
    return replace(usage, cooldown_until=cooldown, disabled_until=disabled, rejected_until=rejected, models=models)


def _table(errors: int) -> float:
    return min(MINUTE * 5.0 ** min(errors - 1, 3), HOUR)


def _wait(table: float, retry_after: float | None, options: CooldownOptions) -> float:
    return table if retry_after is None else min(max(retry_after, 0.0), options.retry_after_max)


def _count(usage: Usage, outcome: Outcome, *, now: float, window: float) -> Usage:
    if usage.last_failure and now - usage.last_failure > window:
        usage = replace(usage, error_count=0, failure_counts={})
    elif not usage.cooling(now):
        billing = usage.failure_counts.get(Outcome.BILLING, 0)
        usage = replace(usage, error_count=0, failure_counts={Outcome.BILLING.value: billing} if billing else {})
    counts = {**usage.failure_counts, outcome.value: usage.failure_counts.get(outcome, 0) + 1}
    return replace(usage, error_count=usage.error_count + 1, failure_counts=counts, last_failure=now)
