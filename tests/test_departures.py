"""Every channel on which a secret leaves for an agent or an Envoy: a record is made before, and without it nothing leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as auth_pb
from envoy.service.auth.v3.external_auth_pb2_grpc import AuthorizationStub
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.secret.v3.sds_pb2_grpc import SecretDiscoveryServiceStub

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.bootstrap.subscriptions import subscribe
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.envoy.authorize import AuthorizationServicer
from equabot_broker.envoy.secret_discovery import SecretServicer
from equabot_broker.rpc.server import control_server
from equabot_broker.telemetry.events import Event
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, SecretPushed
from equabot_broker.telemetry.lease_events import LeaseGranted, LeaseRenewed, MaterialDelivered
from tests.fakes.audit import MemoryAudit
from tests.fakes.engine import Engine, profile
from tests.rpc.serving import Served
from tests.test_reveal import REASONS

KEY = "sk-ant-api03-canary-of-a"
WITHIN = 60.0
"""Seconds in which what leaves has left."""

CHANNELS: dict[str, set[type[Event]]] = {
    "broker/equabot_broker/rpc/convert.py": {LeaseGranted, LeaseRenewed, MaterialDelivered},
    "broker/equabot_broker/domain/credentials.py": {GatewayAuthorized},
    "broker/equabot_broker/envoy/secret_discovery.py": {SecretPushed},
}
"""Where the server reveals a secret for somebody else, and what is recorded before."""
OURS = {"broker/equabot_broker/rpc/tls.py": "the broker's own TLS key, which stays in the process"}


class Held:
    """A broker with one key, its agent, and an Envoy. Nothing may go unrecorded."""

    def __init__(self, engine: Engine, audit: MemoryAudit, agent: Any, control: grpc.aio.Channel) -> None:
        self.engine = engine
        self.audit = audit
        self.agent = agent
        self.control = control
        self.rotations = 0

    def rotate(self) -> None:
        self.rotations += 1
        self.engine.put(profile("anthropic:a", f"{KEY}-{self.rotations}"))


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[Held]:
    engine = Engine(deliveries=frozenset(Delivery))
    audit = MemoryAudit(fail_closed=True)
    engine.events.sinks.insert(0, audit.record)
    engine.put(profile("anthropic:a", KEY))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(engine.running())
        served = Served(engine, tmp_path, stack)
        await served.start()
        secrets = SecretServicer(
            resolver=engine.resolver,
            registry=engine.registry,
            ingest=engine.ingest,
            suspensions=engine.suspensions,
            events=engine.events,
        )
        subscribe(engine, secrets=secrets)
        control = control_server(
            tmp_path / "control.sock",
            [
                AuthorizationServicer(
                    gateway_access=engine.gateway_access, ingest=engine.ingest, catalog=engine.catalog, events=engine.events
                ).service(),
                secrets.service(),
            ],
        )
        await control.start()
        stack.push_async_callback(control.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{tmp_path / 'control.sock'}"))
        yield Held(engine, audit, await served.broker(), channel)


Take = Callable[[], Awaitable[object]]


async def acquired(held: Held) -> Take:
    return lambda: held.agent.AcquireLease(pb.AcquireLeaseRequest(provider="anthropic", delivery="raw"))


async def streamed(held: Held) -> Take:
    return lambda: held.agent.StreamLease(pb.AcquireLeaseRequest(provider="anthropic", delivery="raw")).read()


async def renewed(held: Held) -> Take:
    lease = await held.agent.AcquireLease(pb.AcquireLeaseRequest(provider="anthropic", delivery="raw"))
    held.rotate()
    return lambda: held.agent.RenewLease(pb.RenewLeaseRequest(lease_id=lease.id))


async def rotated(held: Held) -> Take:
    stream = held.agent.StreamLease(pb.AcquireLeaseRequest(provider="anthropic", delivery="raw"))
    await stream.read()

    async def take() -> object:
        held.rotate()
        return await stream.read()

    return take


async def authorized(held: Held) -> Take:
    token = held.engine.lease_service.acquire("main", LeaseRequest(provider="anthropic", delivery="brokered")).token
    assert token is not None
    request = auth_pb.CheckRequest()
    http = request.attributes.request.http
    http.method, http.path, http.host = "POST", "/anthropic/v1/messages", "127.0.0.1"
    http.headers["x-api-key"] = token.reveal()
    return lambda: AuthorizationStub(held.control).Check(request)


async def pushed(held: Held) -> Take:
    call = SecretDiscoveryServiceStub(held.control).StreamSecrets()

    async def take() -> object:
        await call.write(discovery_pb2.DiscoveryRequest(resource_names=["main/anthropic"]))
        return await call.read()

    return take


async def pushed_as_delta(held: Held) -> Take:
    call = SecretDiscoveryServiceStub(held.control).DeltaSecrets()

    async def take() -> object:
        await call.write(discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=["main/anthropic"]))
        return await call.read()

    return take


async def fetched(held: Held) -> Take:
    request = discovery_pb2.DiscoveryRequest(resource_names=["main/anthropic"])
    return lambda: SecretDiscoveryServiceStub(held.control).FetchSecrets(request)


TAKEN: dict[Callable[[Held], Awaitable[Take]], type[Event]] = {
    acquired: LeaseGranted,
    streamed: LeaseGranted,
    renewed: LeaseRenewed,
    rotated: MaterialDelivered,
    authorized: GatewayAuthorized,
    pushed: SecretPushed,
    pushed_as_delta: SecretPushed,
    fetched: SecretPushed,
}


@pytest.mark.parametrize("way", TAKEN, ids=lambda way: way.__name__)
async def test_a_secret_leaves_with_a_record(held: Held, way: Callable[[Held], Awaitable[Take]]) -> None:
    """S8: on each channel, of the kind that gives it."""
    take = await way(held)
    held.audit.heard.clear()
    async with asyncio.timeout(WITHIN):
        assert "canary" in str(await take())
    assert TAKEN[way] in {type(event) for event in held.audit.heard}


@pytest.mark.parametrize("way", TAKEN, ids=lambda way: way.__name__)
async def test_no_secret_leaves_without_a_record(held: Held, way: Callable[[Held], Awaitable[Take]]) -> None:
    """S8: the record comes first, on each channel: where it is refused, the call fails, or nothing is said on it."""
    take = await way(held)
    held.audit.fault = "disk full"
    taking = asyncio.ensure_future(take())
    async with asyncio.timeout(WITHIN):
        while TAKEN[way] not in {type(event) for event in held.audit.refused}:  # noqa: ASYNC110 - the fake has no such event
            await asyncio.sleep(0)
    await asyncio.wait({taking}, timeout=0.1)
    if taking.done():
        assert "canary" not in str(taking.exception() or taking.result())
    taking.cancel()


def test_no_channel_is_forgotten() -> None:
    """Each file of the server in which a secret is revealed to leave it is one of those above."""
    leaving = {file for file in REASONS if file.startswith(("broker/equabot_broker/rpc/", "broker/equabot_broker/envoy/"))} | {
        "broker/equabot_broker/domain/credentials.py"
    }
    assert leaving == CHANNELS.keys() | OURS.keys()
    assert frozenset[type[Event]]().union(*CHANNELS.values()) == set(TAKEN.values())
    assert all(kind.granting for kind in TAKEN.values())
