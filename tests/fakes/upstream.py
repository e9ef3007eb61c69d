"""A model provider on loopback: real HTTP, answers by script, and a record of every request."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_KEY_HEADERS = ("x-api-key", "authorization", "api-key", "x-goog-api-key")


@dataclass
class Received:
    """One request as it came in. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def keys(self) -> dict[str, str]:
        """Every header in it that may hold a key."""
        return {name: self.headers[name] for name in _KEY_HEADERS if name in self.headers}


@dataclass
class Answer:
    """What to answer once."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the default, 5, drops the connections of a burst


class Upstream:
    """Answers `/v1/messages` as Anthropic and `/chat/completions` as OpenAI do, streamed where asked.

    `answers` are given first, in their order. `accepted`, when set, are the only secrets that do not get a 401.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[Answer] = []
        self.accepted: set[str] | None = None
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, received: Received) -> Answer:
        """The next one in the script, or what a well-disposed provider says."""
        if self.answers:
            return self.answers.pop(0)
        if self.accepted is not None and not any(
            value.removeprefix("Bearer ") in self.accepted for value in received.keys().values()
        ):
            return Answer(
                401, body={"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
            )
        asked = json.loads(received.body or b"{}")
        openai = received.path.endswith("/chat/completions")
        if not asked.get("stream"):
            return Answer(body=_COMPLETION if openai else _MESSAGE)
        return Answer(headers={"content-type": "text/event-stream"}, body=_openai_sse() if openai else _anthropic_sse())


_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}


def _anthropic_sse() -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": _MESSAGE | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


def _openai_sse() -> bytes:
    chunks = [
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt", "choices": [choice]}
        for choice in (
            {"index": 0, "delta": {"role": "assistant", "content": "hel"}, "finish_reason": None},
            {"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"},
        )
    ]
    return b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks) + b"data: [DONE]\n\n"


def _handler(upstream: Upstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(self.command, self.path, headers, body)
            upstream.received.append(received)
            answer = upstream.answer(received)
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body or {}).encode()
            self.send_response(answer.status)
            for name, value in ({"content-type": "application/json"} | dict(answer.headers)).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST  # noqa: N815 - the name that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that http.server has
            """Tests look at `received` instead."""

    return Handler
