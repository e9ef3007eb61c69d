"""Leases: never past what policy allows, never past their credential, and renewed from now."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.errors import InvalidArgument, LeaseExpired
from equabot_broker.domain.leases import Lease, check_ttl, grant, renew, renewal_due, shortened
from equabot_broker.domain.policies import Delivery

NOW = 5000.0
durations = st.floats(min_value=1e-3, max_value=1e9)
lefts = st.none() | st.floats(min_value=-1e6, max_value=1e9)
EPSILON = 1e-6


def granted(*, ttl: float = 900.0, max_ttl: float = 3600.0, credential_left: float | None = None, now: float = NOW) -> Lease:
    return grant(
        "id", agent="main", session="s", provider="anthropic", profile="anthropic:env", automatic=True, delivery=Delivery.RAW,
        ttl=ttl, max_ttl=max_ttl, credential_left=credential_left, now=now, streaming=False,
    )  # fmt: skip


def test_grant_has_the_requested_values() -> None:
    """The whole of it."""
    assert granted() == Lease(
        id="id", agent="main", session="s", provider="anthropic", profile="anthropic:env", automatic=True,
        delivery=Delivery.RAW, asked=900.0, issued_at=NOW, expires_at=NOW + 900, max_expires_at=NOW + 3600, streaming=False,
    )  # fmt: skip


@given(durations, durations, lefts)
def test_a_lease_is_as_long_as_the_least_of_three(ttl: float, max_ttl: float, left: float | None) -> None:
    """What was asked, what policy allows, what is left of the credential; and it never ends before it begins."""
    lease = granted(ttl=ttl, max_ttl=max_ttl, credential_left=left)
    assert lease.expires_at == NOW + min(ttl, max_ttl, math.inf if left is None else max(left, 0))
    assert lease.issued_at <= lease.expires_at <= lease.max_expires_at == NOW + max_ttl


@given(
    durations,
    durations,
    st.lists(st.tuples(st.floats(min_value=0, max_value=1e5), st.none() | durations, lefts), max_size=20),
)
def test_no_renewal_reaches_past_the_maximum_or_the_credential(
    ttl: float, max_ttl: float, renewals: list[tuple[float, float | None, float | None]]
) -> None:
    """However often and however long: each counts from now, and the maximum stays where it was at the grant."""
    lease, now = granted(ttl=ttl, max_ttl=max_ttl), NOW
    for passed, asked, left in renewals:
        now += passed
        if lease.expires_at <= now:
            with pytest.raises(LeaseExpired):
                renew(lease, ttl=asked, credential_left=left, now=now)
            return
        renewed = renew(lease, ttl=asked, credential_left=left, now=now)
        wanted = ttl if asked is None else asked
        assert renewed.expires_at == min(
            now + wanted, lease.max_expires_at, math.inf if left is None else now + left
        )  # fmt: skip
        assert renewed.expires_at <= NOW + max_ttl
        assert left is None or renewed.expires_at <= now + left + EPSILON
        untouched = ("id", "agent", "profile", "asked", "issued_at", "max_expires_at", "automatic", "delivery", "streaming")
        assert all(getattr(renewed, name) == getattr(lease, name) for name in untouched)
        lease = renewed


def test_a_renewal_may_shorten() -> None:
    """It counts from now, so a shorter one ends sooner; a later one without a time keeps to what was first asked for."""
    lease = renew(granted(ttl=900), ttl=60, credential_left=None, now=NOW + 1)
    assert lease.expires_at == NOW + 61
    assert renew(lease, ttl=None, credential_left=None, now=NOW + 2).expires_at == NOW + 902


def test_an_expired_lease_is_not_renewed() -> None:
    """At its last instant it is over."""
    lease = granted(ttl=10)
    assert renew(lease, ttl=None, credential_left=None, now=NOW + 9.999).expires_at > lease.expires_at
    for late in (NOW + 10, NOW + 100_000):
        with pytest.raises(LeaseExpired, match="acquire another"):
            renew(lease, ttl=None, credential_left=None, now=late)


def test_a_lease_at_its_maximum_gains_nothing() -> None:
    """Then a renewal would not extend it; before, it would."""
    lease = granted(ttl=60, max_ttl=100)
    assert lease.renewable()
    last = renew(lease, ttl=None, credential_left=None, now=NOW + 50)
    assert last.expires_at == NOW + 100
    assert not last.renewable()
    assert renew(last, ttl=None, credential_left=None, now=NOW + 90) == last


@given(durations, lefts)
def test_a_renewal_is_due_at_two_thirds_of_what_is_left(ttl: float, left: float | None) -> None:
    """Of the lease or of its credential, whichever ends first; so that a third remains for trying again."""
    lease = granted(ttl=ttl, max_ttl=1e9)
    life = lease.expires_at - NOW
    assert renewal_due(lease, credential_left=None, now=NOW) == NOW + life * (2 / 3)
    assert renewal_due(lease, credential_left=left, now=NOW) == NOW + min(life, math.inf if left is None else left) * (2 / 3)


@given(durations)
def test_a_positive_time_to_live_is_taken(ttl: float) -> None:
    """Ten years as well: policy bounds it, not this."""
    assert check_ttl(ttl, default=1.0) == ttl
    assert check_ttl(None, default=ttl) == ttl


@pytest.mark.parametrize("ttl", [0.0, -0.0, -1e-9, -3600.0, float("-inf"), float("nan")])
def test_any_other_time_to_live_is_refused(ttl: float) -> None:
    """At the grant and at a renewal."""
    with pytest.raises(InvalidArgument, match="longer than zero"):
        check_ttl(ttl, default=900.0)
    with pytest.raises(InvalidArgument):
        renew(granted(), ttl=ttl, credential_left=None, now=NOW)


def test_a_shorter_policy_shortens_a_lease_and_never_lengthens_one() -> None:
    """C15: its end and its latest end count from when it was issued."""
    lease = granted(ttl=900.0, max_ttl=3600.0)
    assert shortened(lease, 3600.0) is lease
    assert shortened(lease, 7200.0) is lease
    half = shortened(lease, 600.0)
    assert (half.expires_at, half.max_expires_at) == (NOW + 600.0, NOW + 600.0)
    less = shortened(lease, 1200.0)
    assert (less.expires_at, less.max_expires_at) == (NOW + 900.0, NOW + 1200.0)
