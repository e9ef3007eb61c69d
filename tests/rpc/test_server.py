"""What listens where, and what is served there."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.rpc.server import CannotListen, health_server
from tests.fakes.engine import Engine, profile
from tests.ports import free_port
from tests.rpc.conftest import Serve
from tests.rpc.serving import refused, said

V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"


def reflect(channel: Any, service: str, request: reflection_pb2.ServerReflectionRequest | bytes) -> Any:
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )([request])
    return call.read()


@pytest.mark.parametrize("version", [V1, V1ALPHA])
@pytest.mark.parametrize(("socket_of", "service"), [("main", "Broker"), ("admin", "Admin")])
async def test_reflection_lists_the_services_of_a_socket(serve: Serve, version: str, socket_of: str, service: str) -> None:
    """An agent's socket has the agent's API, the operator's has the operator's, and tools can read both."""
    async with serve(Engine()) as served:
        channel = await served.channel(socket_of)
        listed = await reflect(channel, version, reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {found.name for found in listed.list_services_response.service}
        assert names == {f"equabot.broker.v1.{service}", "grpc.health.v1.Health", V1, V1ALPHA}
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"equabot.broker.v1.{service}")
        files = (await reflect(channel, version, request)).file_descriptor_response.file_descriptor_proto
        assert f"equabot/broker/v1/{service.lower()}.proto" in {FileDescriptorProto.FromString(file).name for file in files}


async def test_reflection_refuses_garbage(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """As every other service does."""
    async with serve(Engine()) as served:
        failed = await refused(reflect(await served.channel(), V1, b"\xff"))
        assert failed.reason == "INVALID_ARGUMENT"
    assert said(caplog) == []


async def test_an_agents_socket_does_not_serve_the_operator(serve: Serve) -> None:
    """Nor the other way round."""
    async with serve(Engine()) as served:
        for name, method in (("main", "Admin/Diagnose"), ("admin", "Broker/AcquireLease")):
            channel: Any = await served.channel(name)
            assert (await refused(channel.unary_unary(f"/equabot.broker.v1.{method}")(b""))).code == "UNIMPLEMENTED"


async def test_a_message_too_large_is_refused_whole(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """S2: more than 16 KiB never becomes a message; the next call is answered."""
    engine = Engine()
    engine.hold(profile("anthropic:a"))
    async with serve(engine) as served:
        broker = await served.broker()
        failed = await refused(broker.AcquireLease(pb.AcquireLeaseRequest(provider="x" * 16_400)))
        assert failed.code == "RESOURCE_EXHAUSTED"
        failed = await refused(broker.AcquireLease(pb.AcquireLeaseRequest(provider="x" * 16_000)))
        assert failed.reason == "INVALID_ARGUMENT"
        assert (await broker.AcquireLease(pb.AcquireLeaseRequest(provider="anthropic"))).profile == "anthropic:a"
    assert said(caplog) == []


# -- health on TCP -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def health_on(host: str, port: int, engine: Engine, directory: Path) -> AsyncIterator[Any]:
    server = health_server((host, port), engine.readiness, behind=directory / "health")
    await server.start()
    shown = f"[{host}]" if ":" in host else host
    async with grpc.aio.insecure_channel(f"{shown}:{port}") as channel:
        yield channel
    await server.stop(None)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_health_is_served_on_tcp_and_nothing_else(host: str, tmp_path: Path) -> None:
    """A pod's network is shared: a process that reaches the port learns what serves, and gets nothing else."""
    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with health_on(host, free_port(), Engine(), tmp_path) as channel:
        assert (await HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="liveness"))).status == 1
        for method in (
            "/equabot.broker.v1.Broker/AcquireLease",
            "/equabot.broker.v1.Admin/Diagnose",
            f"/{V1ALPHA}/ServerReflectionInfo",
            f"/{V1}/ServerReflectionInfo",
        ):
            assert (await refused(channel.unary_unary(method)(b""))).code == "UNIMPLEMENTED"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_two_brokers_do_not_share_a_port(tmp_path: Path) -> None:
    """The second one fails, and says on which address."""
    port = free_port()
    async with health_on("127.0.0.1", port, Engine(), tmp_path):
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port}"):
            health_server(("127.0.0.1", port), Engine().readiness, behind=tmp_path / "other")


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_of_another_machine_is_said(host: str, tmp_path: Path) -> None:
    """What is in the way, where, and what to do."""
    with pytest.raises(CannotListen, match=rf"cannot listen on {host}:\d+: .* set another"):
        health_server((host, free_port()), Engine().readiness, behind=tmp_path / "health")


async def test_a_socket_in_a_directory_that_is_not_there_is_said(tmp_path: Path, serve: Serve) -> None:
    """Rather than a broker that no agent can reach."""
    engine = Engine(agents={"gone/main": Engine().policies.of("main")})
    with pytest.raises(ExceptionGroup) as raised:
        async with serve(engine):
            pass
    assert raised.group_contains(CannotListen, match="gone/main.sock")


async def test_a_stopping_server_ends_what_is_open(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Streams of a drained broker end well within the grace, and a call to a stopped one is UNAVAILABLE."""
    caplog.set_level(logging.INFO)
    engine = Engine()
    engine.hold(profile("anthropic:a"))
    async with serve(engine) as served:
        broker = await served.broker()
        stream: Any = broker.StreamLease(pb.AcquireLeaseRequest(provider="anthropic"))
        await stream.read()
        engine.lease_admin.drain()
        stopping = asyncio.gather(*(server.stop(5) for server in served.servers))
        assert (await stream.read()).reason == "shutting_down"
        assert await stream.read() is grpc.aio.EOF
        async with asyncio.timeout(60):
            await stopping
        assert (await refused(broker.AcquireLease(pb.AcquireLeaseRequest(provider="anthropic")))).code == "UNAVAILABLE"
    assert said(caplog) == []
