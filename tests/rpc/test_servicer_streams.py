"""A stream is a lease: its events, and its end with its holder."""

import asyncio
import gc
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.domain.material import UnitsListed
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.domain.provider import Mode
from tests.fakes.engine import Engine, profile
from tests.rpc.conftest import Serve
from tests.rpc.serving import Served, eventually, in_time, refused, said

NOW = 1_800_000_000
TTL = Duration(seconds=90)


def ask(**fields: Any) -> pb.AcquireLeaseRequest:
    return pb.AcquireLeaseRequest(provider="anthropic", ttl=TTL, **fields)


class Stream:
    """An open stream, read one event at a time."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def next(self) -> pb.LeaseEvent:
        async with asyncio.timeout(60):
            event = await self.call.read()
        assert event is not grpc.aio.EOF
        assert isinstance(event, pb.LeaseEvent)
        return event

    async def ends_well(self) -> None:
        """No further event, and status OK."""
        async with asyncio.timeout(60):
            assert await self.call.read() is grpc.aio.EOF
            assert (await self.call.code()).name == "OK"


@asynccontextmanager
async def streaming(served: Served, **fields: Any) -> AsyncIterator[tuple[Stream, pb.Lease]]:
    """A stream whose first event was read."""
    call: Any = (await served.broker()).StreamLease(ask(**fields))
    stream = Stream(call)
    first = await stream.next()
    assert pb.LeaseEvent.Kind.Name(first.kind) == "GRANTED"
    assert first.lease_id == first.lease.id
    yield stream, first.lease
    call.cancel()


def holding(*secrets: str, **options: Any) -> Engine:
    engine = Engine(**options)
    engine.hold(*(profile(f"anthropic:{letter}", secret) for letter, secret in zip("abc", secrets, strict=False)))
    return engine


# -- events ------------------------------------------------------------------------------------------------------------


async def test_the_first_event_is_the_lease(serve: Serve) -> None:
    """As AcquireLease would have granted it, and timed like it."""
    async with serve(holding("one")) as served, streaming(served) as (_, lease):
        assert (lease.secret, lease.expires_at.seconds, lease.renewable) == ("one", NOW + 90, True)
        assert served.engine.lease_admin.count() == (1, 1)
        assert len(served.acquires) == 1


async def test_new_material_arrives_by_itself(serve: Serve) -> None:
    """The source changed: the stream has the new secret without asking, and a greater version."""
    async with serve(holding("old")) as served, streaming(served) as (stream, lease):
        served.engine.hold(profile("anthropic:a", "new"))
        event = await stream.next()
        assert pb.LeaseEvent.Kind.Name(event.kind) == "ROTATED"
        assert (event.lease_id, event.lease.secret) == (lease.id, "new")
        assert dict(event.lease.headers) == {"x-api-key": "new"}
        assert event.lease.version > lease.version


async def test_a_reader_that_was_away_gets_the_last_of_many(serve: Serve) -> None:
    """Changes are merged as long as they are not read, and the last one is never lost."""
    async with serve(holding("v0")) as served, streaming(served) as (stream, _):
        for number in range(1, 30):
            served.engine.hold(profile("anthropic:a", f"v{number}"))
        seen = [(await stream.next()).lease.secret]
        while seen[-1] != "v29":
            seen.append((await stream.next()).lease.secret)
        assert len(seen) == len(set(seen)) < 30


async def test_a_failing_profile_is_replaced_under_way(serve: Serve) -> None:
    """Another profile takes over with ROTATED; the lease stays."""
    async with serve(holding("one", "two")) as served, streaming(served) as (stream, lease):
        report = pb.ReportOutcomeRequest(lease_id=lease.id, outcome=pb.AUTH, version=lease.version)
        assert (await (await served.broker()).ReportOutcome(report)).changed
        event = await stream.next()
        assert pb.LeaseEvent.Kind.Name(event.kind) == "ROTATED"
        assert event.lease.id == lease.id
        assert {lease.secret, event.lease.secret} == {"one", "two"}


async def test_a_lease_is_renewed_while_it_is_read_until_its_maximum(serve: Serve) -> None:
    """RENEWED before each end, EXPIRING when no renewal is left, REVOKED with `max_ttl`, and then OK."""
    agents = {"main": AgentPolicy(providers=frozenset({"*"}), max_ttl=200.0)}
    told = []
    async with serve(holding("one", agents=agents)) as served, streaming(served) as (stream, _):
        event = await in_time(served.engine, stream.next())
        while event.kind != pb.LeaseEvent.REVOKED:
            told.append((pb.LeaseEvent.Kind.Name(event.kind), event.reason, event.lease.renewable))
            event = await in_time(served.engine, stream.next())
        assert event.reason == "max_ttl"
        assert not event.HasField("lease")
        await stream.ends_well()
        assert served.engine.lease_admin.count() == (0, 0)
    assert told[0] == ("RENEWED", "", True)
    assert told[-2:] == [("RENEWED", "", False), ("EXPIRING", "max_ttl", False)]


async def test_the_end_of_the_credential_is_announced(serve: Serve) -> None:
    """EXPIRING with `credential`: acquire another."""
    engine = Engine()
    engine.hold(profile("anthropic:t", "tok", mode=Mode.TOKEN, expires_at=NOW + 60.0))
    async with serve(engine) as served, streaming(served) as (stream, lease):
        assert lease.expires_at.seconds == NOW + 60
        event = await in_time(engine, stream.next())
        assert 40 <= engine.clock.now() - NOW < 60
        assert (pb.LeaseEvent.Kind.Name(event.kind), event.reason) == ("EXPIRING", "credential")
        event = await in_time(engine, stream.next())
        assert pb.LeaseEvent.Kind.Name(event.kind) == "REVOKED"
        await stream.ends_well()


@pytest.mark.parametrize("reason", ["revoked", "no_usable_profile", "shutting_down"])
async def test_a_revoked_lease_says_why_and_ends_its_stream(serve: Serve, reason: str) -> None:
    """REVOKED is the last event, without a lease in it; the status is OK."""
    async with serve(holding("one")) as served, streaming(served) as (stream, lease):
        match reason:
            case "revoked":
                await (await served.broker()).RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))
            case "no_usable_profile":
                served.engine.sources[0].push(UnitsListed(()))
            case "shutting_down":
                served.engine.lease_admin.drain()
        event = await stream.next()
        assert (pb.LeaseEvent.Kind.Name(event.kind), event.reason, event.lease_id) == ("REVOKED", reason, lease.id)
        assert not event.HasField("lease")
        await stream.ends_well()


async def test_a_jump_of_the_wall_clock_is_reported(serve: Serve) -> None:
    """The lease lasts as long as before, and its end has another name now."""
    async with serve(holding("one")) as served, streaming(served) as (stream, _):
        served.engine.clock.jump_wall(3600)
        event = await in_time(served.engine, stream.next())
        assert (pb.LeaseEvent.Kind.Name(event.kind), event.lease.expires_at.seconds) == ("RENEWED", NOW + 3600 + 90)


# -- how it ends -------------------------------------------------------------------------------------------------------


async def test_a_stream_that_is_cancelled_takes_its_lease_along(serve: Serve) -> None:
    """At once, and without a word in the log."""
    async with serve(holding("one")) as served, streaming(served) as (stream, lease):
        stream.call.cancel()
        await eventually(lambda: served.engine.lease_admin.count() == (0, 0), within=1)
        renew = (await served.broker()).RenewLease(pb.RenewLeaseRequest(lease_id=lease.id))
        assert (await refused(renew)).reason == "LEASE_NOT_FOUND"


async def test_a_stream_whose_deadline_passes_takes_its_lease_along(serve: Serve) -> None:
    """A deadline is an end like any other."""
    async with serve(holding("one")) as served:
        call: Any = (await served.broker()).StreamLease(ask(), timeout=0.2)
        await Stream(call).next()
        assert (await refused(call.read())).code == "DEADLINE_EXCEEDED"
        await eventually(lambda: served.engine.lease_admin.count() == (0, 0), within=1)


HOLDER = """
import sys, grpc
from equabot.broker.v1 import broker_pb2 as pb, broker_pb2_grpc as stubs
broker = stubs.BrokerStub(grpc.insecure_channel(sys.argv[1]))
streams = [broker.StreamLease(pb.AcquireLeaseRequest(provider="anthropic")) for _ in range(20)]
for stream in streams:
    next(stream)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_process_that_is_killed_holds_nothing(serve: Serve) -> None:
    """The kernel closes its connection, and that is enough."""
    async with serve(holding("one")) as served:
        address = f"unix:{served.run_dir}/main.sock"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLDER, address, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 60) == b"held\n"
        assert served.engine.lease_admin.count() == (20, 20)
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        await eventually(lambda: served.engine.lease_admin.count() == (0, 0), within=1)


async def test_a_thousand_streams_dropped_at_once_leave_nothing_behind(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """On one connection: all are granted, and with the connection all of it goes: leases, mailboxes, tasks, messages."""
    caplog.set_level(logging.INFO)
    engine = holding("one")
    async with serve(engine) as served:
        await engine.settle()
        tasks = len(asyncio.all_tasks())
        channel: Any = await served.channel()
        method = channel.unary_stream(
            "/equabot.broker.v1.Broker/StreamLease", request_serializer=pb.AcquireLeaseRequest.SerializeToString
        )
        calls: list[Any] = [method(ask()) for _ in range(1000)]
        async with asyncio.timeout(60):
            for call in calls:
                await call.read()
        assert engine.lease_admin.count() == (1000, 1000)
        await channel.close()
        await eventually(lambda: engine.lease_admin.count() == (0, 0))
        calls.clear()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
        gc.collect()
        assert not [thing for thing in gc.get_objects() if type(thing).__name__ in ("Mailbox", "LeaseStream", "Notice")]
    assert said(caplog) == []


async def test_a_client_that_never_reads_loses_only_its_lease(serve: Serve) -> None:
    """Once nothing more fits between the two its lease is not renewed; others on the same connection go on. When it reads again
    it finds what was on its way, then that its lease is over. A client's own buffers take megabytes: hence the long secrets."""
    engine = holding("x" * 300_000)
    async with serve(engine) as served:
        broker = await served.broker()
        deaf, alive = Stream(broker.StreamLease(ask())), Stream(broker.StreamLease(ask()))
        await deaf.next()
        await alive.next()
        rotations = [letter * 300_000 for letter in "abcdefghijklmnopqrst"]
        for secret in rotations:
            engine.hold(profile("anthropic:a", secret))
            assert (await alive.next()).lease.secret == secret
        assert engine.lease_admin.count() == (2, 2)
        for _ in range(4):
            assert (await in_time(engine, alive.next())).kind == pb.LeaseEvent.RENEWED
        assert engine.lease_admin.count() == (1, 1)
        late = [await deaf.next()]
        while late[-1].kind != pb.LeaseEvent.REVOKED:
            late.append(await deaf.next())
        assert late[-1].reason == "expired"
        assert len(late) < len(rotations)
        await deaf.ends_well()
