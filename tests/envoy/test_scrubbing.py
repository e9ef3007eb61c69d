"""External processing, as Envoy asks for it: an answer comes back without the credential that it echoes."""

import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub

from equabot_broker.envoy.scrubbing import ScrubbingServicer
from equabot_broker.providers import PROVIDERS
from tests.rpc.serving import said

KEY = "sk-ant-api03-" + "scrub" * 16
BLANK = "*" * len(KEY)


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """To the control socket."""
    server = grpc.aio.server(handlers=[ScrubbingServicer(PROVIDERS.values()).service()])
    server.add_insecure_port(f"unix:{tmp_path / 'control.sock'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'control.sock'}") as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def envoy(channel: grpc.aio.Channel) -> "Envoy":
    return Envoy(ExternalProcessorStub(channel))


class Envoy:
    """One exchange at a time, as Envoy has them processed: headers are answered before more is sent, pieces are not."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def ask(self, **headers: str) -> "Exchange":
        """A request with these headers, behind the check that has put the credential in."""
        exchange = Exchange(self._stub.Process())
        await exchange.send(request_headers=pb.HttpHeaders(headers=_map(headers)))
        mutation = (await exchange.read()).request_headers.response.header_mutation
        assert mutation.remove_headers == ["accept-encoding", "sec-websocket-extensions", "range"]
        return exchange


class Exchange:
    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, **part: Any) -> None:
        await self.call.write(pb.ProcessingRequest(**part))

    async def read(self) -> Any:
        return await self.call.read()

    async def answer(self, **headers: str) -> Any:
        """What becomes of an answer's headers."""
        await self.send(response_headers=pb.HttpHeaders(headers=_map(headers)))
        return await self.read()

    async def body(self, chunks: Iterable[bytes], *, trailers: bool = False) -> bytes:
        """What becomes of an answer's body, whose last chunk ends it unless trailers follow."""
        chunks = list(chunks)
        await self.answer()
        for at, chunk in enumerate(chunks):
            last = at == len(chunks) - 1 and not trailers
            await self.send(response_body=pb.HttpBody(body=chunk, end_of_stream=last))
        if trailers:
            await self.send(response_trailers=pb.HttpTrailers(trailers=_map({"x-end": KEY})))
        await self.call.done_writing()
        out = b""
        while (told := await self.read()) is not grpc.aio.EOF:
            if told.WhichOneof("response") == "response_trailers":
                assert _set(told.response_trailers.header_mutation) == {"x-end": BLANK}
                continue
            out += told.response_body.response.body_mutation.streamed_response.body
        return out


def _map(headers: dict[str, str]) -> HeaderMap:
    return HeaderMap(
        headers=[HeaderValue(key=name.replace("_", "-"), raw_value=value.encode()) for name, value in headers.items()]
    )


def _set(mutation: Any) -> dict[str, str]:
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


@pytest.mark.parametrize(
    "headers",
    [{"x_api_key": KEY}, {"authorization": f"Bearer {KEY}"}, {"x_goog_api_key": KEY}, {"api_key": KEY}],
    ids=lambda headers: next(iter(headers)),
)
async def test_the_credential_is_blanked_wherever_the_request_had_it(envoy: Envoy, headers: dict[str, str]) -> None:
    """In a header of the answer too; the others stay."""
    exchange = await envoy.ask(**headers)
    told = await exchange.answer(x_echo=f"<{KEY}>", content_type="text/plain")
    assert _set(told.response_headers.response.header_mutation) == {"x-echo": f"<{BLANK}>"}


async def test_a_header_with_the_credential_in_its_name_is_removed(envoy: Envoy) -> None:
    """S21: Envoy has written the name in lower case."""
    exchange = await envoy.ask(x_api_key=KEY)
    told = await exchange.answer(**{f"x-{KEY.lower()}-x": "1", "x-other": KEY})
    mutation = told.response_headers.response.header_mutation
    assert (list(mutation.remove_headers), _set(mutation)) == ([f"x-{KEY.lower()}-x"], {"x-other": BLANK})


@pytest.mark.parametrize("trailers", [False, True])
@pytest.mark.parametrize("size", [1, 7, 40, 1000])
async def test_no_cut_lets_it_through(envoy: Envoy, size: int, trailers: bool) -> None:
    """Whatever the chunks; what only begins like it stays, also at the end."""
    text = f"one {KEY} two {KEY}{KEY[:9]}".encode()
    exchange = await envoy.ask(x_api_key=KEY)
    out = await exchange.body([text[at : at + size] for at in range(0, len(text), size)], trailers=trailers)
    assert out == text.replace(KEY.encode(), BLANK.encode())


async def test_an_event_is_handed_on_at_once(envoy: Envoy) -> None:
    """It does not wait for the next one."""
    exchange = await envoy.ask(x_api_key=KEY)
    await exchange.answer(content_type="text/event-stream")
    await exchange.send(response_body=pb.HttpBody(body=b"data: one\n\n"))
    told = await exchange.read()
    assert told.response_body.response.body_mutation.streamed_response.body == b"data: one\n\n"
    exchange.call.cancel()


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd, gzip"])
async def test_a_compressed_answer_is_not_let_through(envoy: Envoy, encoding: str) -> None:
    """None was asked for, and nothing can be found in it."""
    exchange = await envoy.ask(x_api_key=KEY, accept_encoding="gzip")
    told = (await exchange.answer(content_encoding=encoding)).immediate_response
    assert (told.status.code, json.loads(told.body)["error"]["code"]) == (502, "not_searchable")
    assert _set(told.headers) == {"content-type": "application/json", "x-equabot-reason": "NOT_SEARCHABLE"}


async def test_identity_is_no_compression(envoy: Envoy) -> None:
    """Some vendors say that they did nothing."""
    exchange = await envoy.ask(x_api_key=KEY)
    assert (await exchange.answer(content_encoding="identity")).HasField("response_headers")


async def test_what_is_not_a_message_is_refused(channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    """By status, and without an incident."""
    call: Any = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")()
    await call.write(b"\xff nonsense")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said(caplog) == []
