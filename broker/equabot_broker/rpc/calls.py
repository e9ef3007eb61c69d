"""The entry of every call: an exception behind it becomes a status, and its text never leaves the broker.

It decorates handlers, because an interceptor costs a coroutine and a lookup for every call. It uses generic handlers: for
registered ones the server waits on a future per method instead of on one. It uses stream-request handlers also for methods
with one request: they run before a message is taken, and so before it uses room.
"""

import asyncio
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.rpc.admission import Admission, PeerKind
from equabot_broker.rpc.limits import CONTROL
from equabot_broker.rpc.status import StatusRefusal, internal, refusal
from equabot_broker.telemetry.incidents import count

_log = logging.getLogger(__name__)

_FRAMES: Final = 12


class Call(Protocol):
    """What a handler can do with its call."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None if there is no deadline."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """The metadata of the call."""

    def peer(self) -> str:
        """The name of the call's connection in the transport."""

    async def write(self, message: Any) -> None:
        """Sends one message of a stream, and returns when the transport has taken it."""


Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A handler that is chosen for each call by its headers, before its message is taken."""

    choose: Callable[[Any], Awaitable[Handler]]


_PROBED: Final = "grpc.health."
_WATCHED: Final = (_PROBED, "grpc.reflection.")


class Service(grpc.GenericRpcHandler):
    """One service: a handler for every method of its descriptor.

    A handler is a coroutine function of the request (for a stream of requests: of an async iterator) and the `Call`. What it
    raises becomes a status; what it returns is the answer, unless the method streams its answers with `Call.write`. A request
    that cannot be parsed never reaches it, nor the library's log. In a stream of requests it is None.
    """

    def __init__(
        self,
        descriptor: ServiceDescriptor,
        handlers: Mapping[str, Handler | Chosen],
        *,
        name: str = "",
        admission: Admission | None = None,
    ) -> None:
        self.name = name or descriptor.full_name
        self.descriptor = descriptor
        self.handlers = handlers
        admission = admission or Admission(CONTROL)
        self._methods = {
            f"/{self.name}/{method.name}": _method(f"{self.name}/{method.name}", method, handlers[method.name], admission)
            for method in descriptor.methods
        }

    def within(self, admission: Admission) -> "Service":
        """The same service, with its calls counted by the admission."""
        return Service(self.descriptor, self.handlers, name=self.name, admission=admission)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The handler of a method; None for a method of another service."""
        return self._methods.get(handler_call_details.method)


def _method(
    name: str, method: MethodDescriptor, handle: Handler | Chosen, admission: Admission
) -> "grpc.RpcMethodHandler[Any, Any]":
    kind = grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
    return kind(
        guarded(name, (_conversing if method.client_streaming else _answering)(handle, _kind(name, method), admission)),
        request_deserializer=_parser(GetMessageClass(method.input_type)),
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _kind(name: str, method: MethodDescriptor) -> PeerKind:
    if method.server_streaming:
        return PeerKind.WATCH if name.startswith(_WATCHED) else PeerKind.LEASE
    return PeerKind.PROBE if name.startswith(_PROBED) else PeerKind.CALL


def _answering(handle: Handler | Chosen, kind: PeerKind, admission: Admission) -> Handler:
    """A handler for a method with one request."""

    async def answer(_: Any, call: Any) -> Any:
        async def read() -> tuple[Handler, Any]:
            chosen = await handle.choose(call) if isinstance(handle, Chosen) else handle
            return chosen, await call.read()

        chosen, request = await admission.unread(call, read)
        if request is None or request is grpc.aio.EOF:
            raise InvalidArgument("the request is not a message of this method")
        if kind is PeerKind.PROBE:
            return await chosen(request, call)
        with admission.answering(call, kind):
            return await chosen(request, call)

    return answer


def _conversing(handle: Handler | Chosen, kind: PeerKind, admission: Admission) -> Handler:
    """A handler for a stream of requests, which it reads itself."""

    async def answer(requests: Any, call: Any) -> Any:
        with admission.answering(call, kind):
            chosen = await admission.unread(call, lambda: handle.choose(call)) if isinstance(handle, Chosen) else handle
            return await chosen(requests, call)

    return answer


def _parser(kind: type[Message]) -> Callable[[bytes], Message | None]:
    def parse(data: bytes) -> Message | None:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return parse


def guarded(name: str, handle: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
    """Wraps the handler: its exceptions become a status. Cancellation passes through."""

    async def answer(request: Any, call: Any) -> Any:
        try:
            return await handle(request, call)
        except grpc.aio.InternalError:
            # The connection broke before the answer: no caller is left, and the log does not need it.
            raise asyncio.CancelledError from None
        except grpc.aio.BaseError:
            raise  # the server has stopped, or the call was aborted
        except Exception as error:  # noqa: BLE001 - the last handler
            refused = refusal(error) or _incident(name, error)
        del request
        return await call.abort(refused.code, refused.details, refused.trailers)

    return answer


def _incident(name: str, error: Exception) -> StatusRefusal:
    """Logs the place of an exception without its text, which may quote anything."""
    count("call")
    incident = secrets.token_hex(4)
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    _log.error("incident %s: %s in %s at %s", incident, type(error).__qualname__, name, where)
    return internal(incident)
