"""The relay in front of gRPC: what is left of connections that end early, and that each one has a way back."""

import asyncio
import gc
import socket
import struct
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from equabot_broker.domain.callers import CallerProof, Identified
from equabot_broker.rpc import connections
from equabot_broker.rpc.connections import address_in
from equabot_broker.rpc.limits import PROBERS
from equabot_broker.rpc.listening import bound_on
from equabot_broker.rpc.relay import Relay
from tests.fakes.http2 import PREFACE, SETTINGS, Http2, frame
from tests.rpc.conftest import Serve
from tests.rpc.serving import eventually, refused
from tests.rpc.test_remote import ANTHROPIC, MAIN, Remote, remote

HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"


def relay_of(made: Remote) -> Relay:
    """The one that ends TLS."""
    found = [thing for thing in gc.get_objects() if isinstance(thing, Relay) and thing.tls is not None and not thing._closed]
    assert len(found) == 1
    return found[0]


def connection(made: Remote) -> AbstractContextManager[socket.socket]:
    """One that is reset when it ends."""
    connected = socket.create_connection(("127.0.0.1", made.port))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return connected


def names_of_the_relays() -> set[str]:
    """As every process of this network namespace sees them."""
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[-1].removeprefix("@") for line in sockets if "@equabot-" in line}


@pytest.mark.parametrize("sent", [b"", HALF_A_HELLO, b"GET / HTTP/1.1\r\n\r\n", PREFACE + frame(SETTINGS, 0, 0)])
async def test_a_connection_that_is_reset_in_its_handshake_leaves_nothing(serve: Serve, tmp_path: Path, sent: bytes) -> None:
    """S2: neither its place nor its record; and the broker stops afterwards, which it waits for them with."""
    async with remote(serve, tmp_path) as made:
        relay = relay_of(made)
        for _ in range(20):
            with connection(made) as one:
                one.sendall(sent)
                await eventually(lambda: len(relay._callers) > 0 or bool(sent))
        await eventually(lambda: not len(relay.strangers) and not relay._callers)
        await (await made.broker()).AcquireLease(ANTHROPIC, metadata=MAIN)


async def test_a_connection_that_makes_room_within_its_handshake_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    """S2: the relay ends it, so that another has its place."""
    async with remote(serve, tmp_path) as made:
        relay = relay_of(made)
        with ExitStack() as held:
            for _ in range(40):
                held.enter_context(connection(made)).sendall(HALF_A_HELLO)
            await eventually(lambda: next(relay._numbers) > 40 and len(relay._callers) == len(relay.strangers))
        await eventually(lambda: not relay._callers)


async def test_calls_of_unknown_methods_do_not_close_a_connection_to_others(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: they end without a word of who made them; a moment later the next call is let through."""
    monkeypatch.setattr(connections, "_ONE_MORE_AFTER", 0.01)
    async with remote(serve, tmp_path) as made:
        channel: Any = await made.channel()
        for _ in range(20):
            unknown = channel.unary_unary("/some.Service/Method")(b"", metadata=MAIN, timeout=60)
            assert (await refused(unknown)).code == "UNIMPLEMENTED"
        broker: Any = BrokerStub(channel)
        await broker.AcquireLease(ANTHROPIC, metadata=MAIN, timeout=60)


async def test_calls_that_give_up_do_not_close_a_connection_to_others(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: while it takes long to find out who calls, callers give up; once it does not, they are served."""
    monkeypatch.setattr(connections, "_ONE_MORE_AFTER", 0.01)
    async with remote(serve, tmp_path) as made:
        identify, away = made.tokens.identify, asyncio.Event()

        async def slow(shown: CallerProof) -> Identified:
            await away.wait()
            return await identify(shown)

        monkeypatch.setattr(made.tokens, "identify", slow)
        broker: Any = await made.broker()
        for _ in range(2):
            calls: list[Any] = [refused(broker.AcquireLease(ANTHROPIC, metadata=MAIN, timeout=0.2)) for _ in range(8)]
            assert {failed.code for failed in await asyncio.gather(*calls)} == {"DEADLINE_EXCEEDED"}
        away.set()
        await broker.AcquireLease(ANTHROPIC, metadata=MAIN, timeout=60)


async def test_the_names_of_connections_cannot_be_taken_in_advance(serve: Serve, tmp_path: Path) -> None:
    """S2: processes that share the network see the names of the relay's own ends; one that binds the next ones stops no
    connection."""
    async with remote(serve, tmp_path) as made, AsyncExitStack() as held:
        await (await made.broker()).AcquireLease(ANTHROPIC, metadata=MAIN)
        seen = names_of_the_relays()
        assert seen
        next_names = {  # two connections have some of them in common
            f"\0{prefix}/{int(number.partition('-')[0]) + ahead}/{address}"
            for prefix, number, address in (name.split("/") for name in seen)
            for ahead in range(1, 50)
        }
        for name in next_names:
            held.enter_context(socket.socket(socket.AF_UNIX)).bind(name)
        await (await made.broker()).AcquireLease(ANTHROPIC, metadata=MAIN, timeout=60)
        names = {caller.name.split("/")[1].partition("-")[2] for caller in relay_of(made)._callers.values()}
        assert len(names) == len(relay_of(made)._callers)
        assert min(map(len, names)) == 16


async def test_little_is_held_while_calls_wait(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: what it goes on to send stays with it; 272 KiB of each connection were held without a bound on TLS's own buffer."""
    async with remote(serve, tmp_path) as made:
        monkeypatch.setattr(made.tokens, "identify", lambda _: asyncio.Event().wait())
        relay = relay_of(made)

        def flood() -> Http2:
            stranger = Http2(("127.0.0.1", made.port), tls=True)
            for _ in range(12):
                stranger.open("/some.Service/Method")
            for _ in range(1000):
                stranger.send(frame(0xAA, 0, 0, b"x" * 16_000), within=1)
            return stranger

        with await asyncio.to_thread(flood) as stranger:
            assert stranger.ended, "it cannot go on to send"
            (caller,) = relay._callers.values()
            transport: Any = caller.transport
            assert len(caller._gate._held) + transport.get_read_buffer_size() <= 96 << 10


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("fe80::1%eth0", 7, 0, 2), "fe80::1"),
        (("::ffff:192.0.2.1", 7, 0, 0), "::ffff:192.0.2.1"),
        (("192.0.2.1", 7), "192.0.2.1"),
        ("", ""),
    ],
)
def test_a_connection_is_named_after_its_address(name: object, address: str) -> None:
    """Without the zone: gRPC reports `%` as `%25`, and the connection of a call would not be found."""
    assert address_in(name) == address


@pytest.mark.parametrize("caller_first", [False, True])
async def test_the_last_bytes_of_the_server_behind_reach_the_caller(place: Path, *, caller_first: bool) -> None:
    """A stopped server has written what the relay has not read yet: it arrives, also when the caller's next bytes find no
    reader behind."""
    writers: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(PREFACE))
        writers.append(writer)

    behind = await asyncio.start_unix_server(keep, path=place / "behind")
    port = bound_on("127.0.0.1", 0)
    relay = Relay(port, place / "behind", metadata=8 << 10, strangers=PROBERS.table())
    await relay.start()
    reading, writing = await asyncio.open_connection(*port[0].getsockname())
    writing.write(PREFACE + frame(SETTINGS, 0, 0))
    await eventually(lambda: bool(writers))
    if caller_first:
        other = next(iter(relay._callers.values())).other
        assert other is not None
        other.transport.pause_reading()
    writers[0].write(b"the last word")
    writers[0].close()
    await writers[0].wait_closed()
    writing.write(frame(SETTINGS, 0, 0) * 1000)  # unread when the connection ends, which must not reset it
    if not caller_first:
        await relay.stop()
    assert await reading.read() == b"the last word"
    writing.close()
    await relay.stop()
    behind.close()
