"""What a failure costs, and what heals it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import (
    HOUR,
    MINUTE,
    CooldownOptions,
    Outcome,
    Usage,
    accepted,
    failed,
    rejected,
    shifted,
    succeeded,
)

NOW = 1_800_000_000.0
OPTIONS = CooldownOptions()
COOLING = (Outcome.RATE_LIMIT, Outcome.TIMEOUT, Outcome.AUTH)

seconds = st.floats(min_value=0, max_value=30 * 24 * HOUR)
outcomes = st.sampled_from(list(Outcome))
retry_afters = st.none() | st.floats(min_value=-10, max_value=48 * HOUR)
histories = st.lists(st.tuples(seconds, outcomes, retry_afters), max_size=12)


def fail(usage: Usage, outcome: Outcome, *, at: float = NOW, retry_after: float | None = None) -> Usage:
    return failed(usage, outcome, provider="anthropic", now=at, options=OPTIONS, retry_after=retry_after)


def lived(history: list[tuple[float, Outcome, float | None]]) -> tuple[Usage, float]:
    """A profile after some days of work, and the time it is then."""
    usage, now = Usage(), NOW
    for passed, outcome, retry_after in history:
        now += passed
        usage = succeeded(usage, now=now) if outcome is Outcome.OK else fail(usage, outcome, at=now, retry_after=retry_after)
    return usage, now


@pytest.mark.parametrize("outcome", COOLING)
def test_failures_in_a_row_cost_1_5_25_and_60_minutes(outcome: Outcome) -> None:
    """By count, while they follow each other; 60 is the most."""
    usage, costs = Usage(), []
    for _ in range(6):
        usage = fail(usage, outcome)
        costs.append((usage.cooldown_until - NOW) / MINUTE)
    assert costs == [1, 5, 25, 60, 60, 60]
    assert usage.error_count == 6
    assert usage.failure_counts == {outcome.value: 6}
    assert usage.last_failure == NOW


def test_kinds_of_failure_add_up() -> None:
    """A timeout after a rate limit is the second failure, though each kind is counted on its own too."""
    usage = fail(fail(Usage(), Outcome.RATE_LIMIT), Outcome.TIMEOUT)
    assert usage.cooldown_until == NOW + 5 * MINUTE
    assert usage.failure_counts == {"rate_limit": 1, "timeout": 1}


@given(histories, st.sampled_from(COOLING))
def test_after_a_lapsed_cooldown_one_failure_costs_a_minute_again(
    history: list[tuple[float, Outcome, float | None]], outcome: Outcome
) -> None:
    """Whatever happened before: once nothing cools the profile down any more, the table begins anew."""
    usage, now = lived(history)
    later = max(now, usage.cooldown_until, usage.disabled_until)
    again = fail(usage, outcome, at=later)
    assert again.cooldown_until == pytest.approx(later + MINUTE)
    assert again.error_count == 1


@given(histories, seconds, outcomes, retry_afters)
def test_a_failure_never_shortens_the_table(
    history: list[tuple[float, Outcome, float | None]], passed: float, outcome: Outcome, retry_after: float | None
) -> None:
    """Every cost lies between a minute and an hour, a billing disable between 5 and 24 hours, unless the provider says when.
    S5: billing costs a cooldown first, and while that or a disable goes on another one changes nothing."""
    usage, now = lived(history)
    now += passed
    after = fail(usage, outcome, at=now, retry_after=retry_after)
    if outcome in (Outcome.OK, Outcome.FORMAT):
        assert after is usage
        return
    repeated = outcome is Outcome.BILLING and bool(usage.failure_counts.get(outcome))
    if repeated and usage.cooling(now):
        assert after is usage
        return
    billing = repeated and bool(after.failure_counts[outcome] > 1)
    cost = (after.disabled_until if billing else after.cooldown_until) - now
    if retry_after is not None:
        assert cost == pytest.approx(min(max(retry_after, 0), 24 * HOUR), abs=1e-3)
    elif billing:
        assert round(cost / HOUR) in (5, 10, 20, 24)
    else:
        assert round(cost / MINUTE) in (1, 5, 25, 60)
    assert sum(after.failure_counts.values()) >= after.error_count >= 1
    assert after.last_failure == now
    assert after.last_used == usage.last_used


def test_a_billing_failure_is_a_cooldown_first() -> None:
    """S5: the request may have been too large. Others that fail meanwhile add nothing; one after the cooldown disables."""
    first = fail(Usage(), Outcome.BILLING)
    assert (first.cooldown_until, first.disabled_until) == (NOW + MINUTE, 0)
    assert fail(first, Outcome.BILLING, at=NOW + MINUTE - 1) is first
    assert fail(first, Outcome.BILLING, at=NOW + MINUTE).disabled_until == NOW + MINUTE + 5 * HOUR
    assert fail(succeeded(first, now=NOW + 1), Outcome.BILLING, at=NOW + MINUTE).disabled_until == 0


def test_a_billing_failure_of_the_smallest_request_disables_at_once() -> None:
    """S5: what was not too large says that the account is empty, also in the middle of the cooldown."""
    for before in (Usage(), fail(Usage(), Outcome.BILLING)):
        after = failed(before, Outcome.BILLING, provider="anthropic", now=NOW, options=OPTIONS, proven=True)
        assert after.disabled_until == NOW + 5 * HOUR


def test_billing_failures_disable_for_5_hours_doubling_to_24() -> None:
    """Also when each comes after the disable before it has ended: the doubling is what the count is kept for."""
    usage = fail(Usage(), Outcome.BILLING)
    now, costs = usage.cooldown_until, []
    for _ in range(4):
        usage = fail(usage, Outcome.BILLING, at=now)
        costs.append((usage.disabled_until - now) / HOUR)
        now = usage.disabled_until + 1
    assert costs == [5, 10, 20, 24]
    assert usage.disabled_reason == "billing"


def test_a_disable_of_a_day_is_a_day_without_failure() -> None:
    """Counters start at zero after 24 hours, so after the longest disable a cooldown comes again."""
    usage = fail(Usage(failure_counts={"billing": 9}, last_failure=NOW, disabled_until=NOW + 24 * HOUR), Outcome.BILLING,
                 at=NOW + 24 * HOUR + 1)  # fmt: skip
    assert usage.cooldown_until == NOW + 24 * HOUR + 1 + MINUTE
    assert usage.failure_counts == {"billing": 1}


def test_counters_restart_after_a_day_without_failure() -> None:
    """Even in a cooldown that the provider made long."""
    usage = fail(Usage(), Outcome.TIMEOUT)
    usage = fail(usage, Outcome.RATE_LIMIT, retry_after=24 * HOUR)
    assert fail(usage, Outcome.TIMEOUT, at=NOW + 24 * HOUR - 1).error_count == 3
    later = fail(fail(Usage(), Outcome.BILLING), Outcome.RATE_LIMIT, at=NOW + 24 * HOUR + 1)
    assert later.failure_counts == {"rate_limit": 1}


def test_billing_is_configurable_and_by_provider() -> None:
    """The three settings of `auth.cooldowns`."""
    options = CooldownOptions(billing_backoff=HOUR, billing_backoff_by_provider={"openai": 2 * HOUR}, billing_max=3 * HOUR)

    def cost(provider: str, count: int) -> float:
        usage = Usage(failure_counts={"billing": count}, last_failure=NOW)
        return (failed(usage, Outcome.BILLING, provider=provider, now=NOW, options=options).disabled_until - NOW) / HOUR

    assert [cost("anthropic", n) for n in range(1, 5)] == [1, 2, 3, 3]
    assert [cost("openai", n) for n in range(1, 4)] == [2, 3, 3]
    assert cost("openai", 10_000_000) == 3


def test_the_window_is_configurable() -> None:
    """`failureWindowHours`."""
    options = CooldownOptions(failure_window=HOUR)
    usage = failed(Usage(), Outcome.BILLING, provider="p", now=NOW, options=options)
    usage = failed(usage, Outcome.BILLING, provider="p", now=NOW + HOUR + 1, options=options)
    assert usage.failure_counts == {"billing": 1}


def test_retry_after_overrides_the_table() -> None:
    """Shorter and longer, of rate limits and of billing, but a day at most and never into the past."""
    assert fail(Usage(), Outcome.RATE_LIMIT, retry_after=7).cooldown_until == NOW + 7
    assert fail(Usage(), Outcome.RATE_LIMIT, retry_after=7200).cooldown_until == NOW + 7200
    assert fail(Usage(), Outcome.BILLING, retry_after=90).cooldown_until == NOW + 90
    assert fail(Usage(failure_counts={"billing": 1}), Outcome.BILLING, retry_after=60).disabled_until == NOW + 60
    assert fail(Usage(), Outcome.RATE_LIMIT, retry_after=1e12).cooldown_until == NOW + 24 * HOUR
    assert fail(Usage(), Outcome.RATE_LIMIT, retry_after=-5).cooldown_until == NOW
    assert not fail(Usage(), Outcome.RATE_LIMIT, retry_after=0).cooling(NOW)


@given(histories, seconds)
def test_success_clears_everything(history: list[tuple[float, Outcome, float | None]], passed: float) -> None:
    """But when it was used: that is now."""
    usage, now = lived(history)
    assert succeeded(usage, now=now + passed) == Usage(last_used=now + passed)


def test_malformed_request_does_not_affect_the_profile() -> None:
    """FORMAT changes nothing: another credential would get the same answer."""
    cooling = fail(Usage(), Outcome.RATE_LIMIT)
    assert fail(cooling, Outcome.FORMAT) is cooling
    assert fail(Usage(), Outcome.OK) == Usage()


def test_rejection_applies_to_one_version() -> None:
    """It says why and of which material, counts, and cools nothing down."""
    usage = rejected(Usage(), "401", version=7, now=NOW)
    assert usage == Usage(
        error_count=1, failure_counts={"auth": 1}, last_failure=NOW, rejected="401", rejected_version=7,
        rejected_until=NOW + MINUTE, rejections=1,
    )  # fmt: skip
    assert not usage.cooling(NOW)


def test_delays_between_trials_grow() -> None:
    """S4: after 1, 2, 4 minutes and so on, up to an hour; chance takes a fifth at most. Other material begins at a minute."""
    usage, waits = Usage(), []
    for _ in range(9):
        usage = rejected(usage, "401", version=7, now=NOW)
        waits.append((usage.rejected_until - NOW) / MINUTE)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert usage.rejects(7, NOW)
    assert not usage.rejects(8, NOW)
    assert not usage.rejects(7, usage.rejected_until)
    assert rejected(usage, "401", version=8, now=NOW, chance=1.0).rejected_until == NOW + 0.8 * MINUTE
    assert accepted(usage) == replace(usage, rejected="", rejected_version=0, rejected_until=0.0, rejections=0)


@given(histories, seconds)
def test_cooldown_ends_with_time(history: list[tuple[float, Outcome, float | None]], passed: float) -> None:
    """`cooling` and `cooling_until` agree, and both end."""
    usage, now = lived(history)
    at = now + passed
    until = usage.cooling_until(at)
    assert usage.cooling(at) == (until > 0)
    assert until == 0 or until == max(usage.cooldown_until, usage.disabled_until) > at
    assert not usage.cooling(max(usage.cooldown_until, usage.disabled_until))


@given(histories, seconds, st.floats(min_value=-HOUR * 24, max_value=HOUR * 24))
def test_clock_jump_keeps_the_remaining_cooldown(
    history: list[tuple[float, Outcome, float | None]], passed: float, by: float
) -> None:
    """A cooldown is a duration; what has ended stays ended, and nothing else is touched."""
    usage, before = lived(history)
    before += passed
    after = shifted(usage, by, now=before + by)
    for field in ("cooldown_until", "disabled_until"):
        was, now_is = getattr(usage, field), getattr(after, field)
        if was > before:
            assert now_is - (before + by) == pytest.approx(was - before, abs=1e-3)
        else:
            assert now_is == was
    assert shifted(usage, 0.0, now=before) == usage


def test_a_history_of_failures_stays_small() -> None:
    """A thousand failures take no more memory than the kinds there are, and no number overflows."""
    usage = Usage()
    for n in range(1000):
        usage = fail(usage, list(Outcome)[n % len(Outcome)], at=NOW + n * MINUTE)
    assert len(usage.failure_counts) == len(Outcome) - 2
    assert usage.cooldown_until <= NOW + 1000 * MINUTE + HOUR
    assert usage.disabled_until <= NOW + 1000 * MINUTE + 24 * HOUR


def test_the_same_failure_costs_more_only_while_it_cools() -> None:
    """Two instants tell it: just before the end of a cooldown, and at it."""
    first = fail(Usage(), Outcome.RATE_LIMIT)
    costs = [fail(first, Outcome.RATE_LIMIT, at=at).cooldown_until - at for at in (NOW + MINUTE - 1, NOW + MINUTE)]
    assert costs == [5 * MINUTE, MINUTE]
    assert all(a != b for a, b in pairwise(costs))
