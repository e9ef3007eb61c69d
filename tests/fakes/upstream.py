"""A model provider on loopback: real HTTP, answers by script, and a record of every request."""

import base64
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from tests.fakes import vendor_answers as says

_KEY_HEADERS = ("x-api-key", "authorization", "api-key", "x-goog-api-key")
_PATIENCE: Final = 30.0
_EVENTS: Final = {"content-type": "text/event-stream"}


@dataclass
class Received:
    """One request as it came in. Header names are lower case; one that came twice is joined with a comma. `trailers` are lines
    behind a chunked body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    trailers: tuple[bytes, ...] = ()

    def keys(self) -> dict[str, str]:
        """Every header in it that may hold a key."""
        return {name: self.headers[name] for name in _KEY_HEADERS if name in self.headers}

    def secret(self) -> str:
        """The key that it came with, and empty for none."""
        return next((value.removeprefix("Bearer ") for value in self.keys().values()), "")


@dataclass
class Answer:
    """What to answer once. `body` goes whole; `chunks` one by one as they come, an Event in their midst being waited for (the
    first thing in them, where it is one, before the head is sent). `reset` breaks the connection off behind them."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    chunks: Iterable[bytes | threading.Event] | None = None
    reset: bool = False


def refused(status: int, **headers: str) -> Answer:
    """An error as the vendors tell it; `retry_after="7"` is a header."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, says.error(status))


class _Server(ThreadingHTTPServer):
    request_queue_size = 512  # the default, 5, drops the connections of a burst

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away in the middle are what some tests are about."""


class Upstream:
    """Answers as Anthropic (`/v1/messages`, counted, listed models), OpenAI (`/chat/completions`, `/responses`, also over a
    WebSocket) and Google (`:generateContent`) do, streamed where asked. `/realtime` is a WebSocket that echoes, `/echo` shows a
    request's headers in every way: in a header, and in its body, in pieces of three bytes and as an event if `?stream`.

    `answers` are given first, in their order; then `verdicts`, what becomes of every request with that secret. `accepted`, when
    set, are the only secrets that do not get a 401.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.received: list[Received] = []
        self.answers: list[Answer] = []
        self.verdicts: dict[str, Answer] = {}
        self.accepted: set[str] | None = None
        self._server = _Server((host, 0), type("Handler", (_Handler,), {"upstream": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self) -> None:
        """As if it had just been started: for tests that share one."""
        self.received.clear()
        self.answers.clear()
        self.verdicts.clear()
        self.accepted = None

    def answer(self, received: Received) -> Answer:
        """The next one in the script, or what a well-disposed provider says."""
        if self.answers:
            return self.answers.pop(0)
        secret = received.secret()
        if secret in self.verdicts:
            return self.verdicts[secret]
        if self.accepted is not None and secret not in self.accepted:
            return refused(401)
        path, _, query = received.path.partition("?")
        match path.rpartition("/")[2]:
            case "echo":
                return _echo(received, stream="stream" in query)
            case "models":
                return Answer(body=says.models("claude", "gpt"))
            case "count_tokens":
                return Answer(body={"input_tokens": 1})
        return _generated(path, stream=bool(json.loads(received.body or b"{}").get("stream")))


def _generated(path: str, *, stream: bool) -> Answer:
    if path.endswith(":streamGenerateContent"):
        return Answer(headers=_EVENTS, chunks=says.content_events())
    if path.endswith((":generateContent", ":countTokens")):
        return Answer(body={**says.CONTENT, "totalTokens": 1})
    if path.endswith("/chat/completions"):
        return Answer(headers=_EVENTS, chunks=says.completion_events()) if stream else Answer(body=says.COMPLETION)
    if path.endswith("/responses"):
        return Answer(headers=_EVENTS, chunks=says.response_events()) if stream else Answer(body=says.RESPONSE)
    return Answer(headers=_EVENTS, chunks=says.message_events()) if stream else Answer(body=says.MESSAGE)


def _echo(received: Received, *, stream: bool) -> Answer:
    told = says.event("echo", dict(received.headers)) if stream else json.dumps(dict(received.headers)).encode()
    shown = {"x-echo": received.secret(), "content-type": "text/event-stream" if stream else "application/json"}
    return Answer(headers=shown, chunks=[told[at : at + 3] for at in range(0, len(told), 3)])


class _Handler(BaseHTTPRequestHandler):
    upstream: Upstream
    """Of whom it is a part: one class an upstream."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        received = Received(self.command, self.path, headers, *self._body())
        self.upstream.received.append(received)
        answer = self.upstream.answer(received)
        if answer.status == 200 and headers.get("upgrade", "").lower() == "websocket":
            self._speak_frames(headers["sec-websocket-key"], responses=self.path.partition("?")[0].endswith("/responses"))
        elif answer.chunks is None:
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body or {}).encode()
            self._head(answer, **{"content-length": str(len(content))})
            if self.command != "HEAD":
                self.wfile.write(content)
        else:
            self._send_chunks(answer)
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    # The names that http.server calls.
    do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_POST  # noqa: N815

    def _body(self) -> tuple[bytes, tuple[bytes, ...]]:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0)), ()
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(pieces), tuple(iter(lambda: self.rfile.readline().strip(), b""))

    def _head(self, answer: Answer, **more: str) -> None:
        self.send_response(answer.status)
        for name, value in ({"content-type": "application/json"} | dict(answer.headers) | more).items():
            self.send_header(name, value)
        self.end_headers()

    def _send_chunks(self, answer: Answer) -> None:
        begun = False
        for chunk in answer.chunks or ():
            if isinstance(chunk, threading.Event):
                chunk.wait(_PATIENCE)
                continue
            if not begun:
                self._head(answer, **{"transfer-encoding": "chunked"})
                begun = True
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        if not answer.reset:
            self.wfile.write(b"0\r\n\r\n")

    def _speak_frames(self, key: str, *, responses: bool) -> None:
        """RFC 6455, as far as whole texts go: each is answered with itself, or with the events of a response."""
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
        self._head(Answer(101), connection="Upgrade", upgrade="websocket", **{"sec-websocket-accept": accept})
        self.close_connection = True
        while (head := self.rfile.read(2)) and head[0] & 0x0F != 0x8:
            text = self._unmasked(head[1] & 0x7F)
            for said in [json.dumps(step).encode() for step in says.response_steps()] if responses else [text]:
                size = len(said)
                self.wfile.write(struct.pack("!BB", 0x81, size) if size < 126 else struct.pack("!BBH", 0x81, 126, size))
                self.wfile.write(said)

    def _unmasked(self, size: int) -> bytes:
        if size > 125:
            size = int.from_bytes(self.rfile.read(2 if size == 126 else 8))
        mask, masked = self.rfile.read(4), self.rfile.read(size)
        return (int.from_bytes(masked) ^ int.from_bytes((mask * (size // 4 + 1))[:size])).to_bytes(size)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
        """Tests look at `received` instead."""
