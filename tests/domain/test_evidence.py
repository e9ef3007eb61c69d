"""What one agent has met: when it counts for others, when it says nothing more, what its agent sees."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome, Usage, rejected
from equabot_broker.domain.evidence import REMEMBERED, Evidence, confirmed, disproved, overlaid

NOW = 1_800_000_000.0
REFUSED = Evidence(outcome=Outcome.AUTH, version=3, usage=rejected(Usage(), "401", version=3, now=NOW))
LIMITED = Evidence(outcome=Outcome.RATE_LIMIT, version=3, usage=Usage(cooldown_until=NOW + MINUTE, last_failure=NOW))
DOUBTED = replace(REFUSED, doubted_until=NOW + HOUR)


@pytest.mark.parametrize(
    ("own", "other", "counts"),
    [
        (REFUSED, REFUSED, True),
        (LIMITED, LIMITED, True),
        (LIMITED, REFUSED, False),
        (REFUSED, replace(REFUSED, version=2), False),
        (LIMITED, replace(LIMITED, version=2), True),
        (REFUSED, replace(REFUSED, sure=False), False),
        (REFUSED, DOUBTED, True),
        (DOUBTED, REFUSED, True),
        (DOUBTED, DOUBTED, False),
        (Evidence(), Evidence(), False),
    ],
)
def test_two_agents_with_the_same_failure_confirm_it(own: Evidence, other: Evidence, counts: bool) -> None:
    """S4: the same failure, a refusal of the same material. Not when both have been disproved."""
    assert confirmed(own, [other], now=NOW) is counts
    assert not confirmed(own, [], now=NOW)


def test_evidence_is_old_after_an_hour() -> None:
    """And says nothing more once whatever it holds is over."""
    assert confirmed(REFUSED, [REFUSED], now=NOW + REMEMBERED - 1)
    assert not confirmed(REFUSED, [REFUSED], now=NOW + REMEMBERED)
    assert REFUSED.lapses_at() == NOW + REMEMBERED
    assert replace(REFUSED, usage=replace(REFUSED.usage, disabled_until=NOW + 5 * HOUR)).lapses_at() == NOW + 5 * HOUR
    assert Evidence().lapses_at() == 0


def test_disproved_failure_allows_an_early_attempt() -> None:
    """S4: its hold is no longer than a minute then, however often it was refused."""
    usage = REFUSED.usage
    for _ in range(5):
        usage = rejected(usage, "401", version=3, now=NOW)
    after = disproved(replace(REFUSED, usage=usage), now=NOW + 1)
    assert (after.usage.rejected_until, after.doubted_until) == (NOW + MINUTE, NOW + 1 + REMEMBERED)


usages = st.builds(
    Usage,
    cooldown_until=st.sampled_from([0.0, NOW, NOW + 60, NOW + 600]),
    disabled_until=st.sampled_from([0.0, NOW + 90]),
    disabled_reason=st.sampled_from(["", "billing"]),
    rejected=st.sampled_from(["", "401"]),
    rejected_version=st.sampled_from([0, 3]),
    rejected_until=st.sampled_from([0.0, NOW + 60, NOW + 120]),
    last_used=st.just(NOW),
)


@given(usages, usages)
def test_agent_sees_the_longer_cooldown(everybody: Usage, own: Usage) -> None:
    """What it has met itself never makes a profile better than it is for everybody."""
    seen = overlaid(everybody, replace(REFUSED, usage=own), 3)
    assert seen.cooldown_until == max(everybody.cooldown_until, own.cooldown_until)
    assert seen.disabled_until == max(everybody.disabled_until, own.disabled_until)
    refusals = [usage for usage in (everybody, own) if usage.rejected and usage.rejected_version == 3]
    assert bool(seen.rejected and seen.rejected_version == 3) == bool(refusals)
    if refusals:
        assert seen.rejected_until == max(usage.rejected_until for usage in refusals)
    assert seen.last_used == everybody.last_used
