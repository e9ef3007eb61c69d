"""What Anthropic, OpenAI and Google say: shapes, names of events, errors. Words are short; the forms are whole."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

Json = dict[str, Any]

ERRORS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
"""Anthropic's word for a status."""

MESSAGE: Final[Json] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
COMPLETION: Final[Json] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}
CONTENT: Final[Json] = {
    "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "hello"}]}, "finishReason": "STOP"}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
    "modelVersion": "gemini",
}
_OUTPUT: Final[Json] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hello", "annotations": []}],
}
RESPONSE: Final[Json] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt",
    "status": "completed",
    "output": [_OUTPUT],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}


def error(status: int, message: str = "refused") -> Json:
    """A refusal that both vendors' packages read."""
    return {"type": "error", "error": {"type": ERRORS.get(status, "api_error"), "message": message}}


def models(*names: str) -> Json:
    """A list of models, as both vendors' packages read it."""
    listed = [
        {"type": "model", "object": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
        for name in names
    ]
    return {"object": "list", "data": listed, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def message_events() -> Iterator[bytes]:
    """A message, streamed as Anthropic does: with the names of events, and a ping."""
    events: tuple[Json, ...] = (
        {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    )
    return (event(told["type"], told) for told in events)


def completion_events() -> Iterator[bytes]:
    """A chat completion, streamed as OpenAI does: without names, `[DONE]` at its end."""
    for choice in (
        {"index": 0, "delta": {"role": "assistant", "content": "hel"}, "finish_reason": None},
        {"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"},
    ):
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt", "choices": [choice]}
        yield f"data: {json.dumps(chunk)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def content_events() -> Iterator[bytes]:
    """Content, streamed as Google does: without names or an end."""
    yield f"data: {json.dumps(CONTENT)}\n\n".encode()


def response_events() -> Iterator[bytes]:
    """A response, streamed as OpenAI does: with names and numbers."""
    return (event(told["type"], told) for told in response_steps())


def response_steps() -> Iterator[Json]:
    """The events of a response, as they are sent over a WebSocket."""
    begun = RESPONSE | {"status": "in_progress", "output": []}
    place: Json = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    events: tuple[Json, ...] = (
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": _OUTPUT | {"content": [], "status": "in_progress"}},
        {"type": "response.content_part.added", **place, "part": {"type": "output_text", "text": "", "annotations": []}},
        {"type": "response.output_text.delta", **place, "delta": "hel", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "lo", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": "hello", "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": _OUTPUT},
        {"type": "response.completed", "response": RESPONSE},
    )
    return (told | {"sequence_number": number} for number, told in enumerate(events))


def event(name: str, told: Json) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(told)}\n\n".encode()
