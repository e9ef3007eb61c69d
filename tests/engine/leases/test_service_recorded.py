"""Leases while the audit log must be kept and cannot be: nothing is given, nothing that was given is lost."""

import asyncio
from dataclasses import replace

import pytest

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import AuditUnavailable, ProviderUnknown
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.leases.streams import NoticeKind
from equabot_broker.telemetry.lease_events import (
    LeaseDenied,
    LeaseGranted,
    LeaseMoved,
    LeaseRenewed,
    LeaseRevoked,
    MaterialDelivered,
    RenewalDenied,
)
from tests.fakes.audit import MemoryAudit
from tests.fakes.engine import Engine, profile

A, B = "anthropic:a", "anthropic:b"
ANY = LeaseRequest(provider="anthropic", session="talk")


@pytest.fixture
def audit() -> MemoryAudit:
    return MemoryAudit(fail_closed=True)


@pytest.fixture
def engine(audit: MemoryAudit) -> Engine:
    """Two profiles, and an audit log that hears first."""
    engine = Engine(agents={"main": AgentPolicy(providers=frozenset({"*"}), max_leases=1)})
    engine.events.sinks.insert(0, audit.record)
    engine.put(profile(A), profile(B))
    return engine


async def test_grant_that_cannot_be_recorded_is_refused(engine: Engine, audit: MemoryAudit) -> None:
    """No lease, nothing stored, nobody counts it as granted; it is a denial with a reason, and works again by itself."""
    audit.fault = "disk full"
    for grant in (engine.lease_service.acquire, engine.lease_service.stream):
        with pytest.raises(AuditUnavailable, match="disk full"):
            grant("main", ANY)
    engine.store.flush()
    assert engine.lease_admin.count() == (0, 0)
    assert engine.store.load().leases == ()
    denied = LeaseDenied(agent="main", provider="anthropic", reason="AUDIT_UNAVAILABLE", session="talk")
    assert [event for event in engine.emitted if isinstance(event, (LeaseGranted, LeaseDenied))] == [denied, denied]
    audit.fault = ""
    lease = engine.lease_service.acquire("main", ANY).lease
    assert [event.lease for event in audit.heard if isinstance(event, LeaseGranted)] == [lease.id]


async def test_a_grant_is_recorded_before_it_is_a_lease(engine: Engine, audit: MemoryAudit) -> None:
    """A crash in between leaves a record of a lease that nobody has, and never a lease without a record."""
    counts = []
    engine.events.sinks.append(lambda event: counts.append(engine.lease_admin.count()) if event.granting else None)
    lease = engine.lease_service.acquire("main", ANY).lease
    assert counts == [(0, 0)]
    engine.lease_service.revoke("main", lease.id)
    assert [type(event) for event in audit.heard[-2:]] == [LeaseGranted, LeaseRevoked]


async def test_failed_renewal_keeps_the_lease(engine: Engine, audit: MemoryAudit) -> None:
    """And can be revoked: ending one needs no record."""
    lease = engine.lease_service.acquire("main", ANY).lease
    audit.fault = "disk full"
    engine.clock.advance(100)
    with pytest.raises(AuditUnavailable):
        engine.lease_service.renew("main", lease.id)
    assert engine.lease_service.look(lease.id).lease.expires_at == lease.expires_at
    assert [e for e in engine.emitted if isinstance(e, (LeaseRenewed, RenewalDenied))] == [
        RenewalDenied(agent="main", lease=lease.id, reason="AUDIT_UNAVAILABLE")
    ]
    engine.lease_service.revoke("main", lease.id)
    assert engine.lease_admin.count() == (0, 0)


async def test_move_that_cannot_be_recorded_is_refused(engine: Engine, audit: MemoryAudit) -> None:
    """Another profile is another secret. The lease keeps its own until the move can be recorded."""
    lease = engine.lease_service.acquire("main", ANY).lease
    audit.fault = "disk full"
    assert engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT) is False
    assert engine.lease_service.look(lease.id).lease.profile == lease.profile
    audit.fault = ""
    moved = engine.lease_service.renew("main", lease.id).lease.profile
    assert {lease.profile, moved} == {A, B}
    assert [e for e in audit.heard if isinstance(e, LeaseMoved)] == [
        LeaseMoved(agent="main", provider="anthropic", before=lease.profile, profile=moved, session="talk", lease=lease.id)
    ]


async def test_a_stream_whose_move_cannot_be_recorded_stays_where_it_can_be_served(engine: Engine, audit: MemoryAudit) -> None:
    """A profile in cooldown serves where no other does: worse than moving, better than no lease."""
    with engine.lease_service.stream("main", ANY) as stream:
        granted = await stream.next()
        audit.fault = "disk full"
        engine.lease_service.report("main", granted.lease_id, Outcome.RATE_LIMIT)
        assert engine.lease_admin.count() == (1, 1)
        assert granted.grant is not None
        assert engine.lease_service.look(granted.lease_id).lease.profile == granted.grant.lease.profile


async def test_a_stream_is_renewed_as_soon_as_that_can_be_recorded(engine: Engine, audit: MemoryAudit) -> None:
    """It has nobody who would ask again, so the broker does, well before its lease ends."""
    async with engine.running():
        with engine.lease_service.stream("main", ANY) as stream:
            granted = await stream.next()
            assert granted.grant is not None
            asking = asyncio.ensure_future(stream.next())
            audit.fault = "disk full"
            await engine.clock.elapse(700.0)
            assert engine.lease_admin.count() == (1, 1)
            assert not asking.done()
            audit.fault = ""
            await engine.clock.elapse(110.0)
            renewed = await asyncio.wait_for(asking, 60)
            assert renewed.kind is NoticeKind.RENEWED
            assert renewed.grant is not None
            assert renewed.grant.lease.expires_at > granted.grant.lease.expires_at


async def test_rotated_material_goes_to_a_stream_recorded_or_not_at_all(engine: Engine, audit: MemoryAudit) -> None:
    """S8: new material is another secret. While that cannot be recorded, the stream keeps what it has."""
    async with engine.running():
        with engine.lease_service.stream("main", replace(ANY, profile=A)) as stream:
            await stream.next()
            asking = asyncio.ensure_future(stream.next())
            audit.fault = "disk full"
            engine.put(profile(A, "rotated-secret-of-a"), profile(B))
            await engine.clock.elapse(5.0)
            assert not asking.done()
            audit.fault = ""
            await engine.clock.elapse(2.0)
            rotated = await asyncio.wait_for(asking, 60)
            assert rotated.kind is NoticeKind.ROTATED
            assert rotated.grant is not None
            assert rotated.grant.held.profile.secret == SecretValue("rotated-secret-of-a")
    assert [e for e in audit.heard if isinstance(e, MaterialDelivered)] == [
        MaterialDelivered(agent="main", provider="anthropic", profile=A, session="talk", lease=rotated.lease_id)
    ]


async def test_malformed_request_is_recorded_without_its_content(engine: Engine, audit: MemoryAudit) -> None:
    """Anything may stand in its fields, a misplaced secret too."""
    with pytest.raises(ProviderUnknown):
        engine.lease_service.acquire("main", LeaseRequest(provider="s3cret", session="s3cret"))
    assert audit.heard[-1] == LeaseDenied(agent="main", provider="", reason="PROVIDER_UNKNOWN")


async def test_a_renewal_refused_is_recorded_with_the_lease_that_was_asked_for(engine: Engine, audit: MemoryAudit) -> None:
    """Whosoever it is: an agent that tries another's is worth knowing of."""
    with pytest.raises(Exception, match="the lease does not exist"):
        engine.lease_service.renew("main", "somebody-elses")
    assert audit.heard[-1] == RenewalDenied(agent="main", lease="somebody-elses", reason="LEASE_NOT_FOUND")
