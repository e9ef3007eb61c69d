"""Real servers and channels on Unix sockets, with the real engine on fakes behind them."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health_pb2_grpc import HealthStub

from equabot.broker.v1.admin_pb2_grpc import AdminStub
from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from equabot_broker.bootstrap.subscriptions import subscribe
from equabot_broker.providers import PROVIDERS
from equabot_broker.rpc.admin import AdminServicer
from equabot_broker.rpc.convert import LeaseMessages
from equabot_broker.rpc.server import Server, admin_server, agent_server
from equabot_broker.rpc.servicer import BrokerServicer
from tests.fakes.audit import MemoryAudit
from tests.fakes.configuration import FakeConfiguration
from tests.fakes.engine import Engine

if TYPE_CHECKING:
    from equabot.broker.v1.admin_pb2_grpc import AdminAsyncStub
    from equabot.broker.v1.broker_pb2_grpc import BrokerAsyncStub

T = TypeVar("T")


class Served:
    """A broker that serves: a channel of its own for every stub."""

    def __init__(self, engine: Engine, run_dir: Path, stack: AsyncExitStack) -> None:
        self.engine = engine
        self.run_dir = run_dir
        self.acquires: list[float] = []
        self.audit = MemoryAudit()
        self.configuration = FakeConfiguration()
        self.identity_fault = ""
        self.servers: list[Server] = []
        self.messages = LeaseMessages({provider.id: provider.base_url for provider in PROVIDERS.values()})
        self._stack = stack

    async def channel(self, name: str = "main") -> grpc.aio.Channel:
        """To one of the sockets."""
        return await self._stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{self.run_dir / name}.sock"))

    async def broker(self, agent: str = "main") -> "BrokerAsyncStub":
        """As the agent."""
        return cast("BrokerAsyncStub", BrokerStub(await self.channel(agent)))

    async def admin(self) -> "AdminAsyncStub":
        """As the operator."""
        return cast("AdminAsyncStub", AdminStub(await self.channel("admin")))

    async def health(self) -> Any:
        """As a probe that is let in by the main agent."""
        return HealthStub(await self.channel("main"))

    async def start(self) -> None:
        """One server an agent, and the operator's."""
        engine = self.engine
        subscribe(engine, messages=self.messages)
        servers = [
            agent_server(
                self.run_dir / f"{agent}.sock",
                BrokerServicer(
                    agent, lease_service=engine.lease_service, resolver=engine.resolver,
                    profile_statuses=engine.profile_statuses, ingest=engine.ingest,
                    refresh_scheduler=engine.refresh_scheduler, suspensions=engine.suspensions, messages=self.messages,
                    observe=self.acquires.append,
                ),
                engine.readiness,
                leases=engine.policies.of(agent).max_leases, behind=self.run_dir / f"{agent}.behind",
            )
            for agent in engine.policies.agents
        ]  # fmt: skip
        admin = AdminServicer(
            lease_admin=engine.lease_admin, resolver=engine.resolver,
            order_overrides=engine.order_overrides, registry=engine.registry,
            ingest=engine.ingest, readiness=engine.readiness, suspensions=engine.suspensions,
            suspension_control=engine.suspension_control, policies=engine.policies, store=engine.store, events=engine.events,
            audit=self.audit, configuration=self.configuration, identity_fault=lambda: self.identity_fault,
            started_at=1_799_999_000.0,
        )  # fmt: skip
        for server in [*servers, admin_server(self.run_dir / "admin.sock", admin, engine.readiness)]:
            await server.start()
            self.servers.append(server)
            self._stack.push_async_callback(server.stop, None)


class Refused:
    """What a call was refused with, as a client reads it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code().name
        self.details = error.details() or ""
        trailers = dict(error.trailing_metadata() or ())
        self.raw = repr(error) + repr(trailers)
        self.reason, self.domain, self.metadata, self.retry_after = "", "", dict[str, str](), None
        for detail in Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
            info, retry = ErrorInfo(), RetryInfo()
            if detail.Unpack(info):
                self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
            elif detail.Unpack(retry):
                self.retry_after = retry.retry_delay.ToTimedelta().total_seconds()


async def refused(call: Any) -> Refused:
    """Awaits a call that must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return Refused(raised.value)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged. Not that gRPC's poller woke up for nothing, which happens where several event loops follow each other in
    one process: in tests."""
    messages = (record.getMessage() for record in caplog.records)
    return [message for message in messages if "PollerCompletionQueue._handle_events" not in message]


async def eventually(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Returns once the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


async def in_time(engine: Engine, awaited: Coroutine[Any, Any, T]) -> T:
    """What is awaited, which comes once enough time has passed: the clock goes on in steps until then."""
    pending = asyncio.ensure_future(awaited)
    while not (await asyncio.wait({pending}, timeout=0.01))[0]:
        await engine.clock.elapse(5.0)
    return pending.result()
