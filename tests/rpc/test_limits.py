"""What strangers and agents can make a listener hold, and that a probe is answered whatever they do."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.rpc import admission, limits
from equabot_broker.rpc.server import health_server
from tests.fakes.engine import Engine, profile
from tests.fakes.http2 import CONTINUATION, DATA, END_STREAM, HEADERS, RST_STREAM, Http2, call, field, frame, message
from tests.rpc.conftest import Serve
from tests.rpc.serving import eventually, refused

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
ACQUIRE = "/equabot.broker.v1.Broker/AcquireLease"
SERVING = health_pb2.HealthCheckResponse.SERVING
LIVENESS = health_pb2.HealthCheckRequest(service="liveness")


class Port:
    """The port for health, and channels to it that end with the test."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self.address = ("127.0.0.1", port)
        self._stack = stack

    async def stub(self) -> Any:
        options = (("grpc.use_local_subchannel_pool", 1),)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.address[1]}", options=options)
        return HealthStub(await self._stack.enter_async_context(channel))

    def http2(self, source: str = "") -> Http2:
        return self._stack.enter_context(Http2(self.address, source=source))

    async def probe(self) -> int:
        """What a new connection is answered."""
        return int((await (await self.stub()).Check(LIVENESS, timeout=60)).status)


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    server = health_server(("127.0.0.1", number), Engine().readiness, behind=tmp_path / "behind")
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop, None)
        yield Port(number, stack)


async def ends(connection: Http2) -> bool:
    """Whether the server ends the connection."""
    await asyncio.to_thread(lambda: list(connection.answers()))
    return connection.ended


async def test_watches_do_not_starve_a_probe(port: Port) -> None:
    """S3: 2,049 of three connections; those beyond the peer's bound are refused, and a Check never is."""
    stubs = [await port.stub() for _ in range(3)]
    watches = [stubs[number % 3].Watch(LIVENESS) for number in range(2049)]
    answers = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
    served = [answer for answer in answers if isinstance(answer, health_pb2.HealthCheckResponse)]
    assert limits.HEALTH.peer is not None
    assert len(served) == limits.HEALTH.peer.watches
    codes = {answer.code().name for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
    assert "RESOURCE_EXHAUSTED" in codes
    assert codes <= {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}, "a stream that the transport refuses may be tried again"
    for stub in (*stubs, await port.stub()):
        assert (await stub.Check(LIVENESS, timeout=60)).status == SERVING
    next(watch for watch, answer in zip(watches, answers, strict=True) if answer in served).cancel()
    async with asyncio.timeout(60):
        while isinstance(await _first(stubs[0].Watch(LIVENESS)), grpc.aio.AioRpcError):
            """The place of the cancelled one is free in a moment."""


async def _first(watch: Any) -> Any:
    try:
        return await watch.read()
    except grpc.aio.AioRpcError as error:
        return error


async def test_watches_of_one_peer_leave_room_for_those_of_others(port: Port) -> None:
    """S3: the bound is per address; from elsewhere a watch is still to be had."""
    many = [port.http2() for _ in range(3)]
    for connection in many:
        for _ in range(limits.HEALTH.streams):
            stream = connection.open(WATCH)
            connection.send(frame(DATA, END_STREAM, stream, message(0)))
    other = port.http2(source="127.0.0.2")
    stream = other.open(WATCH)
    other.send(frame(DATA, END_STREAM, stream, message(0)))
    answered = await asyncio.to_thread(lambda: next(payload for kind, _, _, payload in other.answers() if kind == DATA))
    assert health_pb2.HealthCheckResponse.FromString(answered[5:]).status in (1, 2)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
async def test_connections_do_not_starve_a_probe(port: Port, source: str) -> None:
    """S3: neither silent ones, nor with unfinished calls; the oldest of the peer end for the new ones."""
    many = [port.http2(source=source) for _ in range(100)]
    for connection in many[50:]:
        connection.open(CHECK)
    for _ in range(5):
        assert await port.probe() == SERVING
    assert await ends(many[0])


async def test_unfinished_calls_do_not_starve_a_probe(port: Port) -> None:
    """S3: the oldest of them makes room, and gets an error that says so."""
    held = [port.http2() for _ in range(10)]
    for connection in held:
        for _ in range(limits.HEALTH.streams):
            connection.open(CHECK)
    assert await port.probe() == SERVING
    answers = (answer for connection in held for answer in connection.answers(within=1))
    refusal = await asyncio.to_thread(lambda: next(payload for kind, _, _, payload in answers if kind == HEADERS))
    assert b"too many calls wait for their message" in refusal


@pytest.mark.parametrize("sent", [b"", message(100, sent=10), message(1000, sent=999)])
async def test_a_message_that_does_not_come_is_not_waited_for(port: Port, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: what is announced and not sent ends, on any connection."""
    monkeypatch.setattr(admission, "_MESSAGE_WITHIN", 0.0)
    monkeypatch.setattr(admission, "_LOOKED_AT_EVERY", 0.01)
    connection = port.http2()
    stream = connection.open(CHECK)
    if sent:
        connection.send(frame(DATA, 0, stream, sent))
    ended = await asyncio.to_thread(lambda: next(payload for kind, _, _, payload in connection.answers() if kind == HEADERS))
    assert b"grpc-status\x014" in ended


async def test_a_message_larger_than_its_listener_takes_is_refused(port: Port) -> None:
    """S2: at its announcement, before its bytes are there."""
    connection = port.http2()
    stream = connection.open(CHECK)
    connection.send(frame(DATA, 0, stream, message(limits.HEALTH.message + 1, sent=0)))
    ended = await asyncio.to_thread(lambda: next(payload for kind, _, _, payload in connection.answers() if kind == HEADERS))
    assert b"grpc-status\x018" in ended


@pytest.mark.parametrize(
    "sent",
    [
        frame(HEADERS, 0, 1, call(CHECK)) + b"".join(frame(CONTINUATION, 0, 1, field(b"x", b"y" * 1000)) for _ in range(10)),
        frame(HEADERS, 0, 1, call(CHECK)) + frame(CONTINUATION, 0, 1, b"") * 300,
        frame(HEADERS, 4, 1, call(CHECK, field(b"x", b"y" * 4000))),
        frame(DATA, 0, 0, b"d" * 20_000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_headers_without_end_end_the_connection(port: Port, sent: bytes) -> None:
    """S2: gRPC would keep them."""
    connection = port.http2()
    connection.send(sent)
    assert await ends(connection)
    assert await port.probe() == SERVING


async def test_calls_that_are_reset_leave_nothing(port: Port) -> None:
    """S2: thousands of them on one connection, and the next call on it is answered."""
    connection = port.http2()
    for _ in range(3000):
        stream = connection.open(CHECK)
        connection.send(frame(RST_STREAM, 0, stream, b"\0\0\0\x08"))
    assert await port.probe() == SERVING


async def test_a_connection_without_a_descriptor_waits_for_one(port: Port) -> None:
    """S2, S9: it is reported once a second, not for each of 128 tries, and the next probe is answered when there are some."""
    assert await port.probe() == SERVING
    reported = list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.settimeout(10)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            client.connect(port.address)
            await eventually(lambda: bool(reported))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await port.probe() == SERVING
    assert len(reported) <= 2  # Python 3.14 tries once more
    assert set(reported) == {"socket.accept() out of system resource"}


async def test_an_agents_streams_do_not_starve_its_own_probes(serve: Serve) -> None:
    """S3: nor its calls, nor the operator: streams of leases have places of their own, and each socket is for itself."""
    engine = Engine(agents={"main": AgentPolicy(providers=frozenset({"*"}), max_leases=100)})
    engine.hold(profile("anthropic:a"))
    async with serve(engine) as served:
        health, broker = await served.health(), await served.broker()
        assert (await health.Check(LIVENESS, timeout=60)).status == SERVING  # now the client knows how many streams it may open
        most = engine.policies.of("main").max_leases
        watches: list[Any] = [health.Watch(LIVENESS) for _ in range(200)]
        streams: list[Any] = [broker.StreamLease(pb.AcquireLeaseRequest(provider="anthropic")) for _ in range(most)]
        for stream in streams:
            assert (await stream.read()).kind == pb.LeaseEvent.GRANTED
        await asyncio.gather(*(_first(watch) for watch in watches))
        for _ in range(3):
            assert (await health.Check(LIVENESS, timeout=60)).status == SERVING
        assert (await refused(broker.AcquireLease(pb.AcquireLeaseRequest(provider="anthropic")))).reason == "LEASE_LIMIT"
        admin = HealthStub(await served.channel("admin"))
        assert (await admin.Check(LIVENESS, timeout=60)).status == SERVING


async def test_calls_under_way_are_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3: those beyond are refused with the reason, and the client may try again."""
    engine = Engine()
    engine.hold(profile("anthropic:a"))
    gate = asyncio.Event()
    monkeypatch.setattr(type(engine.ingest), "attempted", property(lambda _: gate.is_set()))
    monkeypatch.setattr(type(engine.ingest), "wait_attempted", lambda _: gate.wait())
    async with serve(engine) as served:
        broker = await served.broker()
        request = pb.AcquireLeaseRequest(provider="anthropic")
        calls = [asyncio.ensure_future(_answer(broker.AcquireLease(request))) for _ in range(limits.ADMIN.calls + 1)]
        async with asyncio.timeout(60):
            (beyond,), _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        failed = await refused(beyond)
        assert failed.reason == "RATE_LIMITED"
        assert failed.retry_after is not None
        gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, pb.Lease) for answer in answers) == limits.ADMIN.calls


async def _answer(called: Any) -> Any:
    return await called
