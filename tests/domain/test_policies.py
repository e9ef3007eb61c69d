"""What an agent may have: nothing, unless somebody said so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.errors import DeliveryNotAllowed, PolicyDenied, RateLimited
from equabot_broker.domain.policies import AgentPolicy, Allowance, Delivery, Policies

BOTH = frozenset(Delivery)
names = st.sampled_from(["anthropic", "openai", "openrouter", "*", ""])
profiles = st.sampled_from(["anthropic:env", "anthropic:work", "openai:env", "*", ""])
delivery_lists = st.lists(st.sampled_from(Delivery), unique=True).map(tuple)
policies = st.builds(AgentPolicy, providers=st.frozensets(names), profiles=st.frozensets(profiles))


@given(names, profiles)
def test_empty_policy_allows_nothing(provider: str, profile: str) -> None:
    """Deny by default."""
    policy = AgentPolicy()
    assert not policy.allows_provider(provider)
    assert not policy.allows_profile(provider, profile)


@given(policies, names.filter(lambda n: n != "*"), profiles.filter(lambda p: p != "*"))
def test_policy_allows_only_listed_values(policy: AgentPolicy, provider: str, profile: str) -> None:
    """By its name, or by the asterisk; a profile needs its provider too. The checks agree with the questions."""
    by_provider = bool(policy.providers & {provider, "*"})
    by_profile = by_provider and bool(policy.profiles & {profile, "*"})
    assert policy.allows_provider(provider) == by_provider
    assert policy.allows_profile(provider, profile) == by_profile
    if by_provider:
        policy.check_provider("main", provider)
    else:
        with pytest.raises(PolicyDenied, match=r"agents\.main\.providers"):
            policy.check_provider("main", provider)
    if by_profile:
        policy.check_profile("main", provider, profile)
    else:
        with pytest.raises(PolicyDenied, match=r"agents\.main\.pro(viders|files)"):
            policy.check_profile("main", provider, profile)


def test_unconfigured_agent_is_refused() -> None:
    """Also not as a prefix or another spelling of one that does. Without a configuration there is `main`, and only it."""
    assert Policies().of("main").allows_provider("anything")
    for stranger in ("", "Main", "mai", "main ", "*", "other"):
        with pytest.raises(PolicyDenied, match="not configured"):
            Policies().of(stranger)
    with pytest.raises(PolicyDenied):
        Policies(agents={}).of("main")


def test_unknown_agent_name_is_cut() -> None:
    """It comes from outside."""
    with pytest.raises(PolicyDenied) as caught:
        Policies().of("x" * 1_000_000)
    assert len(caught.value.message) < 200


@given(delivery_lists, st.frozensets(st.sampled_from(Delivery)))
def test_the_first_delivery_that_is_allowed_and_there_is_taken(
    allowed: tuple[Delivery, ...], there: frozenset[Delivery]
) -> None:
    """When none was asked for; where there is none, it is refused."""
    policy = AgentPolicy(deliveries=allowed)
    possible = [delivery for delivery in allowed if delivery in there]
    if possible:
        assert policy.choose_delivery("main", "", available=there) is possible[0]
    else:
        with pytest.raises(DeliveryNotAllowed):
            policy.choose_delivery("main", "", available=there)


@given(delivery_lists, st.frozensets(st.sampled_from(Delivery)), st.sampled_from(Delivery))
def test_the_delivery_asked_for_is_given_or_refused(
    allowed: tuple[Delivery, ...], there: frozenset[Delivery], asked: Delivery
) -> None:
    """Never another one."""
    policy = AgentPolicy(deliveries=allowed)
    if asked in allowed and asked in there:
        assert policy.choose_delivery("main", asked.value, available=there) is asked
    else:
        with pytest.raises(DeliveryNotAllowed):
            policy.choose_delivery("main", asked.value, available=there)


@pytest.mark.parametrize("asked", ["", "brokered"])
def test_error_says_why_brokered_is_not_available(asked: str) -> None:
    """To an agent that may have nothing else, or asks for it; with what to do."""
    policy = AgentPolicy(deliveries=(Delivery.BROKERED,))
    with pytest.raises(DeliveryNotAllowed, match=r"set gateway\.mode"):
        policy.choose_delivery("main", asked, available=frozenset({Delivery.RAW}), unbrokered="set gateway.mode")


@pytest.mark.parametrize("asked", ["RAW", "raw ", "plain", "x" * 1_000_000])
def test_unknown_delivery_error_lists_deliveries(asked: str) -> None:
    """Without repeating all of what was asked."""
    with pytest.raises(DeliveryNotAllowed, match="use brokered, raw") as caught:
        AgentPolicy().choose_delivery("main", asked, available=BOTH)
    assert len(caught.value.message) < 200


@given(
    rate=st.floats(min_value=0.01, max_value=100),
    burst=st.integers(min_value=1, max_value=50),
    pauses=st.lists(st.floats(min_value=0, max_value=30), max_size=60),
)
def test_in_any_stretch_of_time_no_more_than_the_burst_and_the_rate(rate: float, burst: int, pauses: list[float]) -> None:
    """`burst` at once, then `rate` a second. A refusal says when the next one will be granted, and costs nothing."""
    policy, allowance, now = AgentPolicy(rate=rate, burst=burst), None, 1000.0
    granted: list[float] = []
    waits: list[float] = []
    for pause in pauses:
        now += pause
        try:
            allowance = policy.spend("main", allowance, now=now)
        except RateLimited as refusal:
            waits.append(refusal.retry_after or 0.0)
            policy.spend("main", allowance, now=now + waits[-1] + 1e-6)
        else:
            granted.append(now)
    assert all(0 < wait <= 1 / rate for wait in waits)
    for first, begin in enumerate(granted):
        for last in range(first, len(granted)):
            assert last - first + 1 <= burst + (granted[last] - begin) * rate + 1e-6


@given(st.integers(min_value=1, max_value=50))
def test_the_whole_burst_may_come_at_once(burst: int) -> None:
    """And not one more."""
    policy, allowance = AgentPolicy(rate=1.0, burst=burst), None
    for _ in range(burst):
        allowance = policy.spend("main", allowance, now=5.0)
    assert allowance == Allowance(0.0, 5.0)
    with pytest.raises(RateLimited) as caught:
        policy.spend("main", allowance, now=5.0)
    assert caught.value.retry_after == 1.0
    assert "agents.main.rate" in caught.value.message


def test_without_a_rate_there_is_no_limit() -> None:
    """And nothing to remember."""
    assert AgentPolicy().spend("main", None, now=1.0) is None
