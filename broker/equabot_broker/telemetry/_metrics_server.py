"""The HTTP server for scrapes and probes. It answers GET and HEAD of a few paths, with one request on each connection.

It has a thread and an event loop of its own. A slow scraper costs a socket and never a thread, and the server still answers if
the broker's own loop is blocked. Each resource that a peer can use has a bound: connections in total and per peer, and bytes
of a request. The times until the request is complete and until the answer is read have bounds too.
"""

import asyncio
import logging
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

from equabot_broker.domain.connections import ConnectionTable
from equabot_broker.domain.errors import CannotStart
from equabot_broker.parsing.request_heads import LARGEST_HEAD, HeadRefused
from equabot_broker.telemetry._scrape_request import Page, Scrape, read_request
from equabot_broker.telemetry.log import loop_exception_handler

_log: Final = logging.getLogger(__name__)

CONNECTIONS: Final = 16
CONNECTIONS_PER_PEER: Final = 8
_REQUEST_WITHIN: Final = 5.0
"""Seconds from the connection to the complete request."""
_ANSWER_WITHIN: Final = 10.0
"""Seconds that a scraper has to read its answer. Prometheus waits as long for one."""

_KERNEL_BYTES: Final = 32 << 10
"""Bytes that the kernel buffers for a connection in each direction. Linux doubles the number."""
_BACKLOG: Final = 128
_NO_LINGER: Final = struct.pack("ii", 1, 0)

Render = Callable[[Scrape], Awaitable[Page]]


class MetricsServer:
    """Serves `pages`, by path, until it is closed. `port` is the port on which it listens. Raises CannotStart if it cannot
    listen."""

    def __init__(self, host: str, port: int, *, pages: Mapping[str, Render]) -> None:
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._names = frozenset({host.lower(), socket.gethostname().lower()})
        self._pages = pages
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(loop_exception_handler)
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening and ends every connection immediately. May be called again."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join()

    async def answer(self, head: bytes) -> bytes:
        """The answer to a request, with status line, headers and body."""
        try:
            scrape = read_request(head, names=self._names)
            page = await self._pages[scrape.path](scrape)
        except HeadRefused as refused:
            return _response(refused.status, ("Content-Type: text/plain; charset=utf-8",), f"{refused.words}\n".encode())
        except Exception as error:  # noqa: BLE001 - a port: the text can quote anything, so neither the scraper nor the log has it
            _log.error("a scrape failed: %s", type(error).__qualname__)
            return _response("500 Internal Server Error", (), b"")
        return _response(page.status, page.headers, page.body, sent=scrape.body)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        table = ConnectionTable(most=CONNECTIONS, most_per_peer=CONNECTIONS_PER_PEER)
        # asyncio accepts up to `backlog` times in a row, and logs each failure for lack of a descriptor
        server = await self._loop.create_server(lambda: _Connection(self, table), sock=self._socket, backlog=1)
        self._socket.listen(_BACKLOG)
        await self._closing.wait()
        server.close()
        for connection in table:
            _end(connection)
        closed = self._loop.create_future()
        self._loop.call_soon(closed.set_result, None)  # after the callbacks of the aborted connections
        await closed


class _Connection(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self, server: MetricsServer, table: ConnectionTable) -> None:
        self._server = server
        self._table = table
        self._head = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(_REQUEST_WITHIN, self.end)
        _end(self._table.add(self, transport.get_extra_info("peername")[0]))

    def data_received(self, data: bytes) -> None:
        self._table.touch(self)
        self._head += data[: LARGEST_HEAD + 1]
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if end or len(head) > LARGEST_HEAD:
            self._transport.pause_reading()
            self._deadline.cancel()
            self._deadline = self._loop.call_later(_ANSWER_WITHIN, self.end)
            self._answering = self._loop.create_task(self._answer(head))

    def connection_lost(self, _: Exception | None) -> None:
        self._deadline.cancel()
        self._table.remove(self)
        if self._answering is not None:
            self._answering.cancel()

    def end(self) -> None:
        """Resets the connection. Otherwise the kernel keeps the unread answer without a limit of time."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()

    async def _answer(self, head: bytes) -> None:
        self._transport.write(await self._server.answer(head))
        self._transport.close()  # after the last byte is written, within the deadline


def _end(connection: object) -> None:
    if isinstance(connection, _Connection):
        connection.end()


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)  # connections inherit both
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        bound.bind((host, port))
        bound.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        why = getattr(error, "strerror", None) or "no such address"
        raise CannotStart(f"cannot serve metrics on {host}:{port}: {why}. Set listen.metrics to a free address") from None
    return bound


def _response(status: str, headers: tuple[str, ...], body: bytes, *, sent: bool = True) -> bytes:
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", "")
    return "\r\n".join(lines).encode("latin-1") + (body if sent else b"")
