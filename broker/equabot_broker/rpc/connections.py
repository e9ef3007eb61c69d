"""The two sides of a relayed connection: the caller's and the server's (ADR 20). Each writes what the other reads."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, cast

from equabot_broker.rpc.frames import HeaderGate, MalformedFrame
from equabot_broker.rpc.tls import ServerTls, certificate_of

_CHUNK: Final = 16 << 10
_BUFFER: Final = memoryview(bytearray(_CHUNK))
"""One buffer for all connections: its data is written before the next read."""
_GREETS_WITHIN: Final = 5.0
"""Seconds from the accept to the end of the TLS handshake and the HTTP/2 preface."""
_EARLY: Final = 64 << 10
"""The maximum of bytes that a caller may send before the server's connection is open, which takes a few milliseconds."""
_TRIED_AT_ONCE: Final = 8
"""Concurrent calls of a TLS connection whose caller is not identified yet."""
_ONE_MORE_AFTER: Final = 1.0
"""Seconds until such a connection may try one more call: a call can also end without an identity."""
_ENDED_WITHIN: Final = 1.0
"""Seconds that a side has to end after its last data."""


class ConnectionOwner(Protocol):
    """The relay, as its connections use it. `metadata` is the maximum number of bytes of a header block."""

    metadata: int
    tls: ServerTls | None

    def accept(self, caller: "CallerSide") -> None:
        """Registers a new connection."""

    def connect(self, caller: "CallerSide") -> socket.socket:
        """Connects to the server for this caller. Raises OSError."""

    def record_activity(self, caller: "CallerSide") -> None:
        """Records activity of the connection."""

    def forget(self, caller: "CallerSide") -> None:
        """Removes an ended connection."""


class Side(asyncio.BufferedProtocol):
    """One side of a connection. It writes what the other side reads, and pauses the other side while its buffer is full."""

    transport: asyncio.Transport
    other: "Side | None" = None
    full = False
    """Whether the write buffer is full."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_CHUNK)

    def get_buffer(self, _: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if self.other is not None:
            self.other.transport.write(bytes(_BUFFER[:nbytes]))

    def pause_writing(self) -> None:
        self.full = True
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        if self.other is not None:
            self.other.finish()

    def finish(self) -> None:
        """Closes this side after its buffered data, because the other side has ended."""
        self.transport.close()


class CallerSide(Side):
    """The side of the caller. It opens a connection to gRPC only after the HTTP/2 preface."""

    def __init__(self, relay: ConnectionOwner) -> None:
        self._relay = relay
        self._gate = HeaderGate(largest=relay.metadata, blocks=None if relay.tls is None else _TRIED_AT_ONCE)
        self._early = b""
        self._tasks: list[asyncio.Task[object]] = []
        self._one_more: asyncio.TimerHandle | None = None
        self._finished = False
        self.known = False
        self.address = self.name = self.certificate = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(_GREETS_WITHIN, self.transport.abort)
        self.address = address_in(transport.get_extra_info("peername"))
        self._relay.accept(self)
        if self._relay.tls is not None:
            self.transport.pause_reading()
            self._tasks.append(loop.create_task(self._secure(self._relay.tls)))

    def buffer_updated(self, nbytes: int) -> None:
        if self._finished:
            return
        self._relay.record_activity(self)
        data = bytes(_BUFFER[:nbytes])
        self._pass(lambda: self._gate.pass_on(data))
        if self._gate.waits:
            self.transport.pause_reading()

    def allow(self, calls: int | None) -> None:
        """Permits more calls; None: no limit."""
        waited = self._gate.waits
        self._pass(lambda: self._gate.allow(calls))
        full = self.other is not None and self.other.full
        if waited and not self._gate.waits and not full and not self.transport.is_closing():
            self.transport.resume_reading()

    def _allow_one_more(self) -> None:
        self._one_more = None
        self.allow(1)

    def _pass(self, what: Callable[[], bytes]) -> None:
        try:
            passed = what()
        except MalformedFrame:
            self.transport.abort()
            return
        if self._gate.waits and self._one_more is None:
            self._one_more = asyncio.get_running_loop().call_later(_ONE_MORE_AFTER, self._allow_one_more)
        if self.other is not None:
            self.other.transport.write(passed)
            return
        if passed and not self._early:
            self._tasks.append(asyncio.get_running_loop().create_task(self._open()))
        self._early += passed
        if len(self._early) > _EARLY:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        if self._one_more is not None:
            self._one_more.cancel()
        for task in self._tasks:
            task.cancel()
        self._relay.forget(self)
        super().connection_lost(exc)

    def finish(self) -> None:
        """Closes the sending half first: closing a socket with unread bytes resets the connection, and the caller then loses
        data that it has not read."""
        if self._finished or self.transport.is_closing():
            return
        if not self.transport.can_write_eof():  # TLS cannot close one half
            self.transport.close()
            return
        self._finished = True
        self.transport.write_eof()
        self.transport.resume_reading()
        self._deadline = asyncio.get_running_loop().call_later(_ENDED_WITHIN, self.transport.abort)

    def opened(self, other: "ServerSide") -> None:
        """The connection to the server is open."""
        self._deadline.cancel()
        self.other = other
        other.transport.write(self._early)
        self._early = b""

    async def _secure(self, tls: ServerTls) -> None:
        try:
            self.transport = await tls.secure(self.transport, self)
        except (OSError, TimeoutError):
            self.transport.abort()
            self.connection_lost(None)  # asyncio does not report a connection that ends during its handshake
            return
        self.transport.set_write_buffer_limits(high=_CHUNK)
        self.certificate = certificate_of(self.transport)

    async def _open(self) -> None:
        if self.transport.is_closing():
            return
        try:
            behind = self._relay.connect(self)
        except OSError:
            self.transport.abort()
            return
        await asyncio.get_running_loop().create_unix_connection(lambda: ServerSide(self, behind), sock=behind)


class ServerSide(Side):
    """The side of the server."""

    def __init__(self, caller: CallerSide, connected: socket.socket) -> None:
        self.other = self._caller = caller
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._caller.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """When a write fails, asyncio ends the connection without reading the server's last answers, which may still be in the
        socket."""
        if exc is not None:
            with suppress(OSError):
                while last := self._connected.recv(_CHUNK):
                    self._caller.transport.write(last)
        super().connection_lost(exc)


def address_in(peer: object) -> str:
    """The address without an IPv6 zone: gRPC would escape its `%`."""
    return str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""
