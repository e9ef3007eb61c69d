"""The HTTP server of the page: GET and HEAD of four paths on 127.0.0.1, one request a connection.

Any user and any web page of the host can connect. What they can make it hold is bounded: connections, the bytes of a request,
the seconds until it is whole and until its answer is taken. A stream of events leaves that table, because only the holder of
the session has one; `Board` bounds those.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from typing import Final, cast

from equabot_broker.dashboard.access import PageAccess, check_origin
from equabot_broker.dashboard.board import Board
from equabot_broker.dashboard.document import PageDocument
from equabot_broker.domain.connections import ConnectionTable
from equabot_broker.domain.errors import CannotStart
from equabot_broker.parsing.request_heads import LARGEST_HEAD, HeadRefused, RequestHead, read_head

HOST: Final = "127.0.0.1"
CONNECTIONS: Final = 64
"""Connections without a session, in all; all come from this host."""
_REQUEST_WITHIN: Final = 5.0
"""Seconds from the connection to a whole request."""
_ANSWER_WITHIN: Final = 10.0
"""Seconds until an answer is taken."""
_KERNEL_BYTES: Final = 64 << 10
"""Bytes that the kernel buffers for a connection in each direction; it doubles them."""
_BACKLOG: Final = 128
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_TEXT: Final = "text/plain; charset=utf-8"
_KINDS: Final[Mapping[str, str]] = {"/": "text/html; charset=utf-8", "/icon.svg": "image/svg+xml"}


class DashboardServer:
    """Listens from the beginning, serves while `serve` runs. Raises CannotStart where it cannot listen. Port 0: any."""

    def __init__(self, *, port: int, access: PageAccess, board: Board, document: PageDocument) -> None:
        self._socket = _bound(port)
        self.port: int = self._socket.getsockname()[1]
        self._access = access
        self._board = board
        self._documents = {"/": document.html, "/icon.svg": document.icon}
        self._common = (
            f"Content-Security-Policy: {document.policy}",
            "X-Content-Type-Options: nosniff",
            "X-Frame-Options: DENY",
            "Referrer-Policy: no-referrer",
            "Cross-Origin-Opener-Policy: same-origin",
            "Cross-Origin-Resource-Policy: same-origin",
            "Cache-Control: no-store",
            "Connection: close",
        )

    async def serve(self, stop: asyncio.Event) -> None:
        """Answers until `stop` is set. Then every connection ends."""
        table = ConnectionTable(most=CONNECTIONS, most_per_peer=CONNECTIONS)
        loop = asyncio.get_running_loop()
        # asyncio tries to accept `backlog` times in a row, and logs each that fails for want of a descriptor
        server = await loop.create_server(lambda: PageConnection(self, table, self._board), sock=self._socket, backlog=1)
        self._socket.listen(_BACKLOG)
        await stop.wait()
        server.close()
        for connection in (*table, *self._board):
            cast("PageConnection", connection).end()
        await asyncio.wait_for(server.wait_closed(), _ANSWER_WITHIN)

    def answer(self, data: bytes) -> tuple[bytes, bool]:
        """The answer to a request's head, and whether a stream of events follows it."""
        body = True
        try:
            head = read_head(data)
            body = head.method != "HEAD"
            check_origin(head, port=self.port, document=head.path in self._documents)
            if head.method not in ("GET", "HEAD"):
                raise HeadRefused("405 Method Not Allowed", "use GET or HEAD")  # noqa: TRY301
            return self._route(head)
        except HeadRefused as refused:
            return self._response(refused.status, _TEXT, f"{refused.words}\n".encode(), sent=body), False

    def _route(self, head: RequestHead) -> tuple[bytes, bool]:
        sent = head.method == "GET"
        if head.path in self._documents:
            return self._response("200 OK", _KINDS[head.path], self._documents[head.path], sent=sent), False
        if head.path == "/session" and sent:
            session = self._access.exchange(head, port=self.port)
            body = json.dumps({"key": session.key}).encode()
            return self._response("200 OK", "application/json", body, session.set_cookie), False
        if head.path == "/events" and sent:
            self._access.check(head, port=self.port)
            lines = ("HTTP/1.1 200 OK", "Content-Type: text/event-stream", *self._common, "", "")
            return "\r\n".join(lines).encode("latin-1"), True
        raise HeadRefused("404 Not Found", "this server has only the dashboard: /")

    def _response(self, status: str, kind: str, body: bytes, *headers: str, sent: bool = True) -> bytes:
        lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, *self._common, "", "")
        return "\r\n".join(lines).encode("latin-1") + (body if sent else b"")


class PageConnection(asyncio.Protocol):
    """One request and its answer, which may be a stream."""

    def __init__(self, server: DashboardServer, table: ConnectionTable, board: Board) -> None:
        self._server = server
        self._table = table
        self._board = board
        self._head = b""
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = asyncio.get_running_loop().call_later(_REQUEST_WITHIN, self.end)
        evicted = self._table.add(self, transport.get_extra_info("peername")[0])
        if isinstance(evicted, PageConnection):
            evicted.end()

    def data_received(self, data: bytes) -> None:
        if self._answered:  # a second request, which no browser of ours sends
            self.end()
            return
        self._table.touch(self)
        self._head += data[: LARGEST_HEAD + 1]
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if not end and len(head) <= LARGEST_HEAD:
            return
        self._answered = True
        self._deadline.cancel()
        answer, streams = self._server.answer(head)
        self._transport.write(answer)
        if streams:
            self._table.remove(self)
            self._board.add(self)
        else:
            self._deadline = asyncio.get_running_loop().call_later(_ANSWER_WITHIN, self.end)
            self._transport.close()  # once it is written; the deadline holds until then

    def connection_lost(self, _: Exception | None) -> None:
        self._deadline.cancel()
        self._table.remove(self)
        self._board.remove(self)

    def send(self, data: bytes) -> int:
        """Sends; returns how many bytes wait."""
        self._transport.write(data)
        return self._transport.get_write_buffer_size()

    def end(self) -> None:
        """Ends the connection at once, also in the kernel, which would keep what is unsent."""
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._transport.abort()


def _bound(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)  # connections inherit both
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BYTES)
        bound.bind((HOST, port))
        bound.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        bound.close()
        why = getattr(error, "strerror", None) or "no such port"
        raise CannotStart(f"cannot serve the dashboard on {HOST}:{port}: {why}. Choose another --port") from None
    return bound
