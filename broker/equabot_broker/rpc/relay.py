"""Accepts the connections of a gRPC server, which itself listens on a private Unix socket (ADR 20).

gRPC limits the connections of a server and drops the newest, whichever client has the others: an agent that fills a port would
lock out the kubelet. gRPC also keeps header blocks that have no end.

The relay accepts every new connection, and ends the least active one of a peer that has too many. It passes header blocks on
when they are complete. It terminates TLS, because it must read the frames. The Unix socket from which it connects is named
after the connection, so a call's `peer()` identifies it.
"""

import asyncio
import secrets
import socket
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from equabot_broker.domain.connections import ConnectionTable
from equabot_broker.rpc.connections import CallerSide
from equabot_broker.rpc.listening import BACKLOG
from equabot_broker.rpc.tls import ServerTls

_ENDED_WITHIN: Final = 1.0
"""Seconds that the connections have to end when the relay stops."""
_TRIMMED_AFTER: Final = 5.0
"""Seconds from the end of a connection until its memory is returned to the system."""


class Relay:
    """Accepts connections when it is started. `strangers` counts connections without an identified caller; `known` counts the
    others, if callers are identified at all."""

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
        self._callers: dict[str, CallerSide] = {}
        self._servers: list[asyncio.Server] = []
        self._trimming: asyncio.TimerHandle | None = None
        self._closed = False
        self._gone = asyncio.Event()
        self._gone.set()

    async def start(self) -> None:
        """Begins to accept connections. The server behind it must be running."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets:
            # asyncio accepts `backlog` times in a row, and logs each failure for lack of descriptors
            self._servers.append(await loop.create_server(lambda: CallerSide(self), sock=bound, backlog=1))
            bound.listen(BACKLOG)

    def close(self) -> None:
        """Stops listening."""
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
        """Stops listening, and ends the connections after the last bytes of the server, which has stopped."""
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
        """The caller of this connection is identified: its connection no longer counts as a stranger's."""
        caller = self._callers.get(_name_of(peer))
        if caller is not None and self._known is not None and not caller.known:
            caller.known = True
            self.strangers.remove(caller)
            _end(self._known.add(caller, caller.address))
            caller.allow(None)

    def refused(self, peer: str) -> None:
        """A call of this connection was refused because its caller could not be identified: one more call may be tried."""
        caller = self._callers.get(_name_of(peer))
        if caller is not None and not caller.known:
            caller.allow(1)

    def certificate_of(self, peer: str) -> str:
        """The client certificate of this connection as PEM; empty without one."""
        caller = self._callers.get(_name_of(peer))
        return "" if caller is None else caller.certificate

    def accept(self, caller: CallerSide) -> None:
        """Registers a new connection."""
        # Random for each connection: all containers of a pod see these names, and one could take a name in advance.
        caller.name = f"{self._prefix}/{next(self._numbers)}-{secrets.token_hex(8)}/{caller.address}"
        self._callers[caller.name] = caller
        self._gone.clear()
        _end(self.strangers.add(caller, caller.address))

    def connect(self, caller: CallerSide) -> socket.socket:
        """Connects to the server for this caller. Raises OSError."""
        behind = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            behind.bind(f"\0{caller.name}")
            behind.connect(str(self.path))  # it succeeds at once or fails
        except OSError:
            behind.close()
            raise
        return behind

    def forget(self, caller: CallerSide) -> None:
        """Removes an ended connection."""
        self._callers.pop(caller.name, None)
        if not self._callers:
            self._gone.set()
        for table in (self.strangers, self._known):
            if table is not None:
                table.remove(caller)
        if self._trimming is None and not self._closed:
            self._trimming = asyncio.get_running_loop().call_later(_TRIMMED_AFTER, self._trim)

    def record_activity(self, caller: CallerSide) -> None:
        """Records activity of the connection."""
        table = self._known if caller.known else self.strangers
        if table is not None:
            table.touch(caller)

    def _trim(self) -> None:
        """Returns free memory to the system: the allocator keeps it after a flood of connections."""
        self._trimming = None
        asyncio.get_running_loop().run_in_executor(None, _trim_memory)


def _trim_memory() -> None:
    import ctypes  # noqa: PLC0415 - not before the first connection has ended

    with suppress(AttributeError, OSError):  # only glibc has this call
        ctypes.CDLL(None).malloc_trim(0)


def address_of(peer: str) -> str:
    """The caller's address of a call behind a relay; empty for a call that came another way."""
    return _name_of(peer).rpartition("/")[2]


def _name_of(peer: str) -> str:
    kind, _, name = peer.partition(":")
    return name if kind == "unix-abstract" else ""


def _end(caller: object) -> None:
    if isinstance(caller, CallerSide):
        caller.transport.abort()
