"""Envoy's external processing (`envoy.service.ext_proc.v3`): removes the credential from an answer that repeats it.

Only if the configuration asks for it: every byte of every answer then passes the broker.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.type.v3.http_status_pb2 import HttpStatus

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.provider import Provider
from equabot_broker.envoy.local_replies import NOT_SEARCHABLE, REASON
from equabot_broker.envoy.scrubber import Scrubber
from equabot_broker.rpc.calls import Call, Service

_UNASKED: Final = ("accept-encoding", "sec-websocket-extensions", "range")
"""Headers of a request that are not forwarded to the vendor."""
_PLAIN: Final = frozenset({"", "identity"})
_REPLACE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
_BODY: Final = (
    b'{"type":"error","error":{"type":"api_error","code":"not_searchable","message":"the answer is compressed, although'
    b' none was asked for, so it cannot be searched for the credential"}}'
)


class ScrubbingServicer:
    """Searches answers for the credentials of the request, in the credential headers of all providers."""

    def __init__(self, providers: Iterable[Provider]) -> None:
        self._prefixes: dict[str, set[str]] = {}
        self.apply(providers)

    def apply(self, providers: Iterable[Provider]) -> None:
        """Applies a new configuration."""
        forms = [form for provider in providers for form in provider.headers.values()]
        self._prefixes = {}
        for form in forms:
            self._prefixes.setdefault(form.name.lower(), set()).add(form.prefix)

    def service(self) -> Service:
        """The handlers for the control server."""
        return Service(pb.DESCRIPTOR.services_by_name["ExternalProcessor"], {"Process": self.process})

    async def process(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Processes one request of an agent and its answer."""
        scrubber = Scrubber(())
        async for request in requests:
            if request is None:
                raise InvalidArgument("the request is not a message of this method")
            match request.WhichOneof("request"):
                case "request_headers":
                    scrubber = Scrubber(self._secrets(request.request_headers.headers))
                    await call.write(_unpacked())
                case "response_headers":
                    await call.write(_headers(request.response_headers.headers, scrubber))
                case "response_body":
                    body = request.response_body
                    await call.write(_body(scrubber.feed(body.body, last=body.end_of_stream), last=body.end_of_stream))
                case "response_trailers":
                    if rest := scrubber.feed(b"", last=True):
                        await call.write(_body(rest, last=False))
                    mutation = _blanked(request.response_trailers.trailers, scrubber)
                    await call.write(pb.ProcessingResponse(response_trailers=pb.TrailersResponse(header_mutation=mutation)))

    def _secrets(self, headers: HeaderMap) -> Iterable[bytes]:
        for header in headers.headers:
            if header.key in self._prefixes:
                value = _value(header)
                fitting = (prefix for prefix in self._prefixes[header.key] if value.startswith(prefix.encode()))
                yield value[len(max(fitting, key=len, default="")) :]


def _value(header: HeaderValue) -> bytes:
    value: bytes = header.raw_value or header.value.encode()
    return value


def _unpacked() -> pb.ProcessingResponse:
    """Refuses compressed and framed answers, and partial content: a secret cannot be found in them."""
    mutation = pb.HeaderMutation(remove_headers=_UNASKED)
    return pb.ProcessingResponse(request_headers=pb.HeadersResponse(response=pb.CommonResponse(header_mutation=mutation)))


def _headers(headers: HeaderMap, scrubber: Scrubber) -> pb.ProcessingResponse:
    if any(
        header.key == "content-encoding" and _value(header).decode("latin-1").lower() not in _PLAIN
        for header in headers.headers
    ):
        headers = {"content-type": b"application/json", REASON: NOT_SEARCHABLE.upper().encode()}
        return pb.ProcessingResponse(
            immediate_response=pb.ImmediateResponse(
                status=HttpStatus(code=502),
                headers=pb.HeaderMutation(set_headers=[_header(name, value) for name, value in headers.items()]),
                body=_BODY,
                details=NOT_SEARCHABLE,
            )
        )
    mutation = _blanked(headers, scrubber)
    return pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=pb.CommonResponse(header_mutation=mutation)))


def _blanked(headers: HeaderMap, scrubber: Scrubber) -> pb.HeaderMutation:
    mutation = pb.HeaderMutation()
    for header in headers.headers:
        if scrubber.occurs(header.key):
            mutation.remove_headers.append(header.key)
            continue
        before = _value(header)
        if (after := scrubber.blank(before)) != before:
            mutation.set_headers.append(_header(header.key, after))
    return mutation


def _header(name: str, value: bytes) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=name, raw_value=value), append_action=_REPLACE)


def _body(content: bytes, *, last: bool) -> pb.ProcessingResponse:
    streamed = pb.StreamedBodyResponse(body=content, end_of_stream=last)
    mutation = pb.BodyMutation(streamed_response=streamed)
    return pb.ProcessingResponse(response_body=pb.BodyResponse(response=pb.CommonResponse(body_mutation=mutation)))
