"""What a failure costs a profile, and what heals it. Rules of the seed's system, with its known defects mended.

A failure cools a profile down for 1, 5, 25, 60 minutes by count; a billing failure disables it for 5 hours, doubling to 24.
The provider's own `retry-after` overrides the table. Success clears everything. Counters start anew after a day without
failure, and when a cooldown has lapsed: one 429 after a quiet hour costs a minute, not an hour. Only the count of billing
failures outlives the disable that they caused: without it there would be no doubling.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

MINUTE = 60.0
HOUR = 3600.0


class Outcome(StrEnum):
    """How a provider answered a request."""

    OK = "ok"
    AUTH = "auth"
    RATE_LIMIT = "rate_limit"
    BILLING = "billing"
    TIMEOUT = "timeout"
    FORMAT = "format"


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
    """What is remembered of a profile's use. Instants in seconds since the epoch; 0 means never.

    `rejected` is why the provider refused the credential, for as long as its version stays `rejected_version`.
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

    def cooling(self, now: float) -> bool:
        """Whether it is in cooldown or disabled."""
        return self.cooldown_until > now or self.disabled_until > now

    def cooling_until(self, now: float) -> float:
        """When it may be tried again; 0 when it may be now."""
        until = max(self.cooldown_until, self.disabled_until)
        return until if until > now else 0.0


def succeeded(usage: Usage, *, now: float) -> Usage:
    """After a success: nothing is held against it any more."""
    return Usage(last_used=max(usage.last_used, now))


def rejected(usage: Usage, reason: str, *, version: int, now: float) -> Usage:
    """After the provider refused the credential for good. New material clears it."""
    counted = _count(usage, Outcome.AUTH, now=now, window=24 * HOUR)
    return replace(counted, rejected=reason, rejected_version=version)


def failed(
    usage: Usage, outcome: Outcome, *, provider: str, now: float, options: CooldownOptions, retry_after: float | None = None
) -> Usage:
    """After a failure. FORMAT changes nothing: another credential would get the same answer."""
    if outcome in (Outcome.OK, Outcome.FORMAT):
        return usage
    counted = _count(usage, outcome, now=now, window=options.failure_window)
    if outcome is Outcome.BILLING:
        first = options.billing_backoff_by_provider.get(provider, options.billing_backoff)
        table = min(first * 2.0 ** min(counted.failure_counts[outcome] - 1, 16), options.billing_max)
        until = now + _wait(table, retry_after, options)
        return replace(counted, disabled_until=until, disabled_reason=outcome.value)
    table = min(MINUTE * 5.0 ** min(counted.error_count - 1, 3), HOUR)
    return replace(counted, cooldown_until=now + _wait(table, retry_after, options))


def shifted(usage: Usage, by: float, *, now: float) -> Usage:
    """After the wall clock moved `by` seconds to `now`: what was under way lasts as long as before."""
    before = now - by
    cooldown, disabled = (at + by if at > before else at for at in (usage.cooldown_until, usage.disabled_until))
    return replace(usage, cooldown_until=cooldown, disabled_until=disabled)


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
