"""Logins that must be refreshed, as an agent sees them: which calls wait, for how long, and the answers."""

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.telemetry.lease_events import LeaseDenied
from tests.fakes.engine import profile
from tests.fakes.logins import LIFE, World, login
from tests.fakes.scripted_endpoint import UNREACHED, refused
from tests.fakes.workload import World as WorkloadWorld
from tests.rpc.conftest import Serve
from tests.rpc.serving import in_time
from tests.rpc.serving import refused as refusing

ASKED = pb.AcquireLeaseRequest(provider="acme", ttl=Duration(seconds=1800))


async def asked_once(world: World) -> None:
    """Returns once the token endpoint was asked."""
    async with asyncio.timeout(60):
        await world.script.asked.wait()


async def test_an_expired_login_is_waited_for(serve: Serve) -> None:
    """One refresh for all that ask; how long each took is measured."""
    world = World(entry=login(left=-1))
    world.script.open.clear()
    async with serve(world) as served:
        broker = await served.broker()
        calls = [asyncio.ensure_future(broker.AcquireLease(ASKED, timeout=60)) for _ in range(10)]
        stream: Any = broker.StreamLease(ASKED, timeout=60)
        await asked_once(world)
        done, _ = await asyncio.wait(calls, timeout=0.05)
        assert not done
        world.script.open.set()
        leases = [await call for call in calls]
        first = await stream.read()
    assert {lease.secret for lease in leases} == {"at-2"} == {first.lease.secret}
    assert world.script.redeemed == ["rt-1"]
    assert leases[0].credential_expires_at.seconds == int(world.board.held.profile.expires_at or 0)
    assert world.told(LeaseDenied) == []


@pytest.mark.parametrize("open_", [True, False])
async def test_a_call_is_answered_before_its_deadline(serve: Serve, open_: bool) -> None:
    """P4: REFRESH_FAILED while refreshes fail and while none answers, and when to come again: in a second, where the refresh
    is under way."""
    world = World(UNREACHED, entry=login(left=-1))
    if not open_:
        world.script.open.clear()
    async with serve(world) as served:
        broker = await served.broker()
        call = refusing(broker.AcquireLease(ASKED, timeout=60))
        told = await in_time(world, call)
    assert (told.code, told.reason) == ("UNAVAILABLE", "REFRESH_FAILED")
    assert "acme:me" in told.metadata
    assert told.retry_after == 1.0 if not open_ else told.retry_after is not None
    assert [denied.reason for denied in world.told(LeaseDenied)] == ["REFRESH_FAILED"]


async def test_a_refused_login_names_the_command(serve: Serve) -> None:
    """REAUTH_REQUIRED, at once, with the command."""
    world = World(refused(400, "invalid_grant"), entry=login(left=-1))
    async with serve(world) as served:
        told = await refusing((await served.broker()).AcquireLease(ASKED, timeout=60))
        (status,) = (await (await served.broker()).ListProfiles(pb.ListProfilesRequest(provider="acme"))).profiles
    assert (told.code, told.reason) == ("FAILED_PRECONDITION", "REAUTH_REQUIRED")
    command = "equabot models auth login --provider acme"
    assert command in told.details
    assert (status.state, status.usable) == ("reauth_required", False)
    assert command in status.reason


@pytest.mark.parametrize("knows_version", [True, False])
async def test_a_refusal_before_its_time_is_made_good(serve: Serve, knows_version: bool) -> None:
    """A caller that reports a 401 learns that there is new material, and gets it with the next renewal."""
    world = World()
    async with serve(world) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ASKED)
        version = lease.version if knows_version else 0
        report = pb.ReportOutcomeRequest(lease_id=lease.id, outcome=pb.AUTH, version=version)
        assert (await broker.ReportOutcome(report, timeout=60)).changed
        renewed = await broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id), timeout=60)
    assert (lease.secret, renewed.secret) == ("at-1", "at-2")
    assert world.script.redeemed == ["rt-1"]


async def test_a_refusal_that_cannot_be_made_good_in_time_changes_nothing(serve: Serve) -> None:
    """Nor does one that ends in another refusal."""
    world = World(UNREACHED)
    async with serve(world) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ASKED)
        report = pb.ReportOutcomeRequest(lease_id=lease.id, outcome=pb.AUTH, version=lease.version)

        async def reported() -> bool:
            return (await broker.ReportOutcome(report, timeout=60)).changed

        assert not await in_time(world, reported())


async def test_a_renewal_is_waited_for(serve: Serve) -> None:
    """The lease's own login has expired since."""
    world = World()
    world.script.open.clear()
    async with serve(world) as served:
        broker = await served.broker()
        lease = await broker.AcquireLease(ASKED)
        await world.clock.elapse(LIFE + 1)
        call = asyncio.ensure_future(broker.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id), timeout=60))
        done, _ = await asyncio.wait([call], timeout=0.05)
        assert not done
        world.script.open.set()
        assert (await call).secret == "at-2"


async def asked_by(broker: Any) -> Any:
    return await broker.AcquireLease(ASKED, timeout=60)


async def test_who_has_waited_long_enough_gets_the_next_profile(serve: Serve) -> None:
    """Where there is one: half of the deadline is theirs, and no error. The list says what is in the way."""
    world = WorkloadWorld()
    world.exchanging.open.clear()
    world.hold(profile("acme:key", "the key"), source=1)
    async with serve(world) as served:
        broker = await served.broker()
        lease = await in_time(world, asked_by(broker))
        first, second = (await broker.ListProfiles(pb.ListProfilesRequest(provider="acme"))).profiles
        assert (lease.profile, lease.secret, world.exchanging.asked) == ("acme:key", "the key", 1)
        assert {first.id: first.reason, second.id: second.reason} == {"acme:pod": "not exchanged yet", "acme:key": "ok"}
        assert not any(isinstance(event, LeaseDenied) for event in world.emitted)
        waiting = asyncio.ensure_future(asked_by(broker))
        world.exchanging.open.set()
        assert (await waiting).secret == "wif-1"
