"""Quotas: how many at once, how often, and what one that takes another's place costs."""

import pytest

from equabot_broker.domain.errors import LeaseLimit, RateLimited
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.engine.leases.quotas import Quotas
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.telemetry.events import Events
from tests.fakes.clock import FakeClock
from tests.fakes.state import MemoryStateStore

POLICY = AgentPolicy(max_leases=1)


def holding(clock: FakeClock, *, life: float = 60.0) -> LeaseTable:
    """One lease of `main`."""
    lease_table = LeaseTable(clock=clock, store=MemoryStateStore(), events=Events())
    now = clock.steady()
    lease_table.keep(Lease("1", "main", "", "p", "p:a", True, Delivery.RAW, life, now, now + life, now + 3600))
    return lease_table


def test_number_of_leases_is_limited() -> None:
    """Its own; one that takes another's place is no more."""
    clock = FakeClock()
    quotas = Quotas(holding(clock))
    with pytest.raises(LeaseLimit, match="max_leases"):
        quotas.spend("main", POLICY, now=clock.steady())
    quotas.spend("main", POLICY, now=clock.steady(), freed=1)
    quotas.spend("other", POLICY, now=clock.steady())


def test_expired_lease_does_not_count() -> None:
    """Though nobody has noticed yet."""
    clock = FakeClock()
    quotas = Quotas(holding(clock))
    clock.advance(61)
    quotas.spend("main", POLICY, now=clock.steady())


def test_restored_allowance_can_be_used() -> None:
    """Whoever waits and asks again pays once."""
    clock = FakeClock()
    quotas = Quotas(holding(clock))
    policy = AgentPolicy(rate=1.0, burst=1)
    before = quotas.left("main")
    quotas.spend("main", policy, now=clock.steady())
    with pytest.raises(RateLimited):
        quotas.spend("main", policy, now=clock.steady())
    quotas.restore("main", before)
    quotas.spend("main", policy, now=clock.steady())


def test_renewals_have_a_rate_of_their_own() -> None:
    """S8: each is a record. Who asks for leases without end does not lose those it holds by that."""
    clock = FakeClock()
    quotas = Quotas(holding(clock))
    policy = AgentPolicy(rate=1.0, burst=2)
    for _ in range(2):
        quotas.spend("main", policy, now=clock.steady())
        quotas.spend_renewal("main", policy, now=clock.steady())
    with pytest.raises(RateLimited):
        quotas.spend_renewal("main", policy, now=clock.steady())
    clock.advance(1.0)
    quotas.spend_renewal("main", policy, now=clock.steady())
    for _ in range(100):
        quotas.spend_renewal("main", POLICY, now=clock.steady())
