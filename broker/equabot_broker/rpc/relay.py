"""A listener in front of a gRPC server, which itself listens on a private Unix socket (ADR 20).

gRPC bounds a server's connections, and drops the newest whoever holds the others: an agent that fills a port would keep the
kubelet out. It also keeps header blocks that have no end. The relay lets every new connection in and ends the quietest of the
peer that has too many, passes header blocks on once they are whole, and ends TLS, since what is inside has to be seen for that.
The Unix end that it connects from is named after the connection: a call's `peer()` says which connection it came on.
"""

import asyncio
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, cast

from equabot_broker.domain.connections import ConnectionTable
from equabot_broker.rpc.frames import HeaderGate, MalformedFrame
from equabot_broker.rpc.listening import BACKLOG
from equabot_broker.rpc.tls import ServerTls, certificate_of

_CHUNK: Final = 16 << 10
_BUFFER: Final = memoryview(bytearray(_CHUNK))
"""What is read lies here for no longer than it takes to write it, so that one is enough for all."""
_GREETS_WITHIN: Final = 5.0
"""Seconds from a connection to its handshake and the beginning of HTTP/2."""
_EARLY: Final = 64 << 10
"""Bytes that a caller may send until the server behind is there: a few milliseconds."""
_ENDED_WITHIN: Final = 1.0
_TRIMMED_AFTER: Final = 5.0
"""Seconds from the end of a connection until the memory that it took goes back to the system."""
_TRIED_AT_ONCE: Final = 8
"""Calls of a connection over TLS that are looked at together, until one has identified its caller."""
_ONE_MORE_AFTER: Final = 1.0
"""Seconds until such a connection may try one call more: calls also end without a word of who made them."""


class Relay:
    """Listens once it is started. `strangers` counts connections, until their caller is identified; `known` those of known
    callers, where there are any."""

    def __init__(
        self,
        sockets: list[socket.socket],
        path: Path,
        *,
        metadata: int,
        strangers: ConnectionTable,
        known: ConnectionTable | None = None,
        tls: ServerTls | None = None,
    ) -> None:
        self._sockets = sockets
        self.path = path
        self.metadata = metadata
        self.tls = tls
        self.strangers = strangers
        self._known = known
        self._prefix = f"equabot-{secrets.token_hex(8)}"
        self._numbers = count()
        self._callers: dict[str, _Caller] = {}
        self._servers: list[asyncio.Server] = []
        self._trimming: asyncio.TimerHandle | None = None
        self._closed = False
        self._gone = asyncio.Event()
        self._gone.set()

    async def start(self) -> None:
        """Begins to accept connections: after the server behind it, which is to be there."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            # asyncio tries to accept `backlog` times in a row, and logs each that fails for want of a descriptor
            self._servers.append(await loop.create_server(lambda: _Caller(self), sock=bound, backlog=1))
            bound.listen(BACKLOG)

    def close(self) -> None:
        """Ends the port."""
        for bound in self._sockets:
            if bound.family == socket.AF_UNIX and bound.fileno() >= 0:
                Path(bound.getsockname()).unlink(missing_ok=True)
        for server in self._servers:
            server.close()
        for bound in self._sockets:
            bound.close()
        self._closed = True
        if self._trimming is not None:
            self._trimming.cancel()

    async def stop(self) -> None:
        """Ends the port, and its connections after the last bytes of the server behind, which has stopped."""
        self.close()
        for caller in tuple(self._callers.values()):
            if caller.other is None:
                caller.transport.abort()
        for end in ("close", "abort"):
            with suppress(TimeoutError):
                async with asyncio.timeout(_ENDED_WITHIN):
                    await self._gone.wait()
            for caller in tuple(self._callers.values()):
                getattr(caller.transport, end)()

    def identified(self, peer: str) -> None:
        """The caller of this connection is known: it is no stranger's any more."""
        caller = self._callers.get(_name_of(peer))
        if caller is not None and self._known is not None and not caller.known:
            caller.known = True
            self.strangers.remove(caller)
            _end(self._known.add(caller, caller.address))
            caller.allow(None)

    def refused(self, peer: str) -> None:
        """A call of this connection was refused, since its caller could not be identified: another may be tried."""
        caller = self._callers.get(_name_of(peer))
        if caller is not None and not caller.known:
            caller.allow(1)

    def certificate_of(self, peer: str) -> str:
        """The certificate that the caller of this connection has shown, as PEM; empty for none."""
        caller = self._callers.get(_name_of(peer))
        return "" if caller is None else caller.certificate

    def accept(self, caller: "_Caller") -> None:
        """A caller has come."""
        # Random each time: all of a pod's containers see these names, and one could take those that come next.
        caller.name = f"{self._prefix}/{next(self._numbers)}-{secrets.token_hex(8)}/{caller.address}"
        self._callers[caller.name] = caller
        self._gone.clear()
        _end(self.strangers.add(caller, caller.address))

    def connect(self, caller: "_Caller") -> socket.socket:
        """A connection to the server behind, for this caller. Raises OSError."""
        behind = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            behind.bind(f"\0{caller.name}")
            behind.connect(str(self.path))  # at once, or not at all
        except OSError:
            behind.close()
            raise
        return behind

    def forget(self, caller: "_Caller") -> None:
        """The caller is gone."""
        self._callers.pop(caller.name, None)
        if not self._callers:
            self._gone.set()
        for table in (self.strangers, self._known):
            if table is not None:
                table.remove(caller)
        if self._trimming is None and not self._closed:
            self._trimming = asyncio.get_running_loop().call_later(_TRIMMED_AFTER, self._trim)

    def heard(self, caller: "_Caller") -> None:
        """The caller has sent something."""
        table = self._known if caller.known else self.strangers
        if table is not None:
            table.touch(caller)

    def _trim(self) -> None:
        """The allocator keeps what a flood has freed, until it is asked for it."""
        self._trimming = None
        asyncio.get_running_loop().run_in_executor(None, _give_memory_back)


def _give_memory_back() -> None:
    import ctypes  # noqa: PLC0415 - not before the first connection has ended

    with suppress(AttributeError, OSError):  # other libraries than glibc have no such call
        ctypes.CDLL(None).malloc_trim(0)


class _Side(asyncio.BufferedProtocol):
    """One end of a connection; what it reads the other writes, and it reads no faster than that."""

    transport: asyncio.Transport
    other: "_Side | None" = None
    full = False
    """Whether what is to be written here has to wait."""

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
        """Ends this side after what is still to be written: nothing more comes from the other."""
        self.transport.close()


class _Caller(_Side):
    """The end that came from outside. It costs gRPC nothing before it has said what every client of HTTP/2 says first."""

    def __init__(self, relay: Relay) -> None:
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
        self.address = _address_in(transport.get_extra_info("peername"))
        self._relay.accept(self)
        if self._relay.tls is not None:
            self.transport.pause_reading()
            self._tasks.append(loop.create_task(self._secure(self._relay.tls)))

    def buffer_updated(self, nbytes: int) -> None:
        if self._finished:
            return
        self._relay.heard(self)
        data = bytes(_BUFFER[:nbytes])
        self._pass(lambda: self._gate.pass_on(data))
        if self._gate.waits:
            self.transport.pause_reading()

    def allow(self, calls: int | None) -> None:
        """So many more calls may pass; None: any number."""
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
        """Ends the sending half first: a socket that is closed with unread bytes resets the connection, and the caller
        then loses what it has not read yet."""
        if self._finished or self.transport.is_closing():
            return
        if not self.transport.can_write_eof():  # TLS has no halves
            self.transport.close()
            return
        self._finished = True
        self.transport.write_eof()
        self.transport.resume_reading()
        self._deadline = asyncio.get_running_loop().call_later(_ENDED_WITHIN, self.transport.abort)

    def opened(self, other: "_Server") -> None:
        """The server behind is there."""
        self._deadline.cancel()
        self.other = other
        other.transport.write(self._early)
        self._early = b""

    async def _secure(self, tls: ServerTls) -> None:
        try:
            self.transport = await tls.secure(self.transport, self)
        except (OSError, TimeoutError):
            self.transport.abort()
            self.connection_lost(None)  # asyncio does not say it of a connection that ends within its handshake
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
        await asyncio.get_running_loop().create_unix_connection(lambda: _Server(self, behind), sock=behind)


class _Server(_Side):
    """The end that leads to the server behind."""

    def __init__(self, caller: _Caller, connected: socket.socket) -> None:
        self.other = self._caller = caller
        self._connected = connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._caller.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio ends a connection at a write that fails, unread: the server's last answers may still be in the socket."""
        if exc is not None:
            with suppress(OSError):
                while last := self._connected.recv(_CHUNK):
                    self._caller.transport.write(last)
        super().connection_lost(exc)


def address_of(peer: str) -> str:
    """The address that a call behind a relay comes from; empty for one that came another way."""
    return _name_of(peer).rpartition("/")[2]


def _address_in(peer: object) -> str:
    """Of an IPv6 address no zone: gRPC would write its `%` another way."""
    return str(peer[0]).partition("%")[0] if isinstance(peer, tuple) else ""


def _name_of(peer: str) -> str:
    kind, _, name = peer.partition(":")
    return name if kind == "unix-abstract" else ""


def _end(caller: object) -> None:
    if isinstance(caller, _Caller):
        caller.transport.abort()
