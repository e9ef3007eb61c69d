"""The one door of every call: what is raised behind it leaves as a status, and nothing that was said leaves with it.

Decorated handlers rather than interceptors: an interceptor costs another coroutine and a lookup on every call. Generic handlers
rather than registered ones: with those the server waits on one future per method instead of on one.
"""

import asyncio
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from broker.domain.errors import InvalidArgument
from broker.rpc.status import Refusal, internal, refusal

_log = logging.getLogger(__name__)

_FRAMES: Final = 12


class Call(Protocol):
    """What a handler may ask of the call it answers."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller gives up; None: it has not said."""

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None:
        """Its metadata."""

    async def write(self, message: Any) -> None:
        """Sends one message of a stream; returns once the transport has taken it."""


Handler = Callable[[Any, Any], Awaitable[Any]]


class Service(grpc.GenericRpcHandler):
    """One service: a handler for every method of its descriptor.

    A handler is a coroutine function of the request (for a stream of requests: of an async iterator) and the `Call`. What it
    raises becomes a status; what it returns is the answer, unless the method streams its answers with `Call.write`. A request
    that cannot be parsed never reaches it, nor the library's log. In a stream of requests it is None.
    """

    def __init__(self, descriptor: ServiceDescriptor, handlers: Mapping[str, Handler], *, name: str = "") -> None:
        self.name = name or descriptor.full_name
        self.descriptor = descriptor
        self.handlers = handlers
        self._methods = {
            f"/{self.name}/{method.name}": _method(f"{self.name}/{method.name}", method, handlers[method.name])
            for method in descriptor.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The handler of a method; None for a method of another service."""
        return self._methods.get(handler_call_details.method)


def _method(name: str, method: MethodDescriptor, handle: Handler) -> "grpc.RpcMethodHandler[Any, Any]":
    kind = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    return kind(
        guarded(name, handle),
        request_deserializer=_parser(GetMessageClass(method.input_type)),
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


def _parser(kind: type[Message]) -> Callable[[bytes], Message | None]:
    def parse(data: bytes) -> Message | None:
        try:
            return kind.FromString(data)
        except DecodeError:
            return None

    return parse


def guarded(name: str, handle: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
    """The handler, refusing by status. Cancellation passes through."""

    async def answer(request: Any, call: Any) -> Any:
        try:
            if request is None:
                raise InvalidArgument("the request is not a message of this method")  # noqa: TRY301 - refused like all else
            return await handle(request, call)
        except grpc.aio.InternalError:
            # The connection broke under an answer: nobody is left to hear of it, and the log need not either.
            raise asyncio.CancelledError from None
        except grpc.aio.BaseError:
            raise  # the server has stopped, or the call has been aborted already
        except Exception as error:  # noqa: BLE001 - the last door
            refused = refusal(error) or _incident(name, error)
        del request
        return await call.abort(refused.code, refused.details, refused.trailers)

    return answer


def _incident(name: str, error: Exception) -> Refusal:
    """Logs where, and not what: an exception's text may quote anything."""
    incident = secrets.token_hex(4)
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    _log.error("incident %s: %s in %s at %s", incident, type(error).__qualname__, name, where)
    return internal(incident)
