"""The one door of every call."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.domain.errors import PolicyDenied
from equabot_broker.rpc.calls import Call, Service
from tests.rpc.serving import eventually, refused, said

CANARY = "sk-ant-api03-canary-of-the-door"
BROKER = pb.DESCRIPTOR.services_by_name["Broker"]
ACQUIRE, STREAM = "/equabot.broker.v1.Broker/AcquireLease", "/equabot.broker.v1.Broker/StreamLease"

Handler = Callable[[Any, Call], Awaitable[Any]]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/calls.sock"


@asynccontextmanager
async def serving(path: str, handle: Handler) -> AsyncIterator[Any]:
    """The handler behind every method of the service, and a channel to it."""
    server = grpc.aio.server(handlers=[Service(BROKER, {method.name: handle for method in BROKER.methods})])
    server.add_insecure_port(path)
    await server.start()
    async with grpc.aio.insecure_channel(path) as channel:
        yield channel
    await server.stop(None)


async def break_down(request: Any, call: Call) -> None:
    """Fails with a secret in the text, in a local and in the chain."""
    secret = CANARY
    try:
        dict[str, str]()[secret]
    except KeyError as error:
        raise ValueError(f"cannot use {secret}") from error


@pytest.mark.parametrize("method", [ACQUIRE, STREAM])
async def test_an_unforeseen_error_leaves_nothing_but_an_incident(
    path: str, method: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The caller gets a number, the log the same number with type and place; what the error said goes nowhere."""
    caplog.set_level(logging.DEBUG)
    async with serving(path, break_down) as channel:
        request = pb.AcquireLeaseRequest(provider=CANARY).SerializeToString()
        call = channel.unary_unary(method) if method == ACQUIRE else channel.unary_stream(method)
        answer: Any = call(request)
        failed = await refused(answer if method == ACQUIRE else answer.read())
    assert failed.code == "INTERNAL"
    incident = re.fullmatch(r"internal error: the broker's log has the details under incident ([0-9a-f]{8})", failed.details)
    assert incident is not None
    (record,) = [record for record in caplog.records if record.name == "equabot_broker.rpc.calls"]
    assert f"incident {incident[1]}: ValueError in {method[1:]} at test_calls.py:" in record.getMessage()
    assert "break_down" in record.getMessage()
    assert record.exc_info is None
    captured = capfd.readouterr()
    assert CANARY not in caplog.text + failed.raw + captured.out + captured.err


async def test_a_refusal_is_not_news_for_the_log(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is the caller's to know."""

    async def refuse(request: Any, call: Call) -> None:
        raise PolicyDenied("not for you", metadata={"anthropic": "no"})

    async with serving(path, refuse) as channel:
        failed = await refused(channel.unary_unary(ACQUIRE)(b""))
    assert (failed.code, failed.reason, failed.details) == ("PERMISSION_DENIED", "POLICY_DENIED", "not for you")
    assert failed.metadata == {"anthropic": "no"}
    assert said(caplog) == []


async def test_a_refusal_may_come_after_some_answers(path: str) -> None:
    """What was written arrives, then the status."""

    async def tire(request: Any, call: Call) -> None:
        await call.write(pb.LeaseEvent(lease_id="l1"))
        raise PolicyDenied("enough")

    async with serving(path, tire) as channel:
        call: Any = channel.unary_stream(STREAM, response_deserializer=pb.LeaseEvent.FromString)(b"")
        assert (await call.read()).lease_id == "l1"
        assert (await refused(call.read())).reason == "POLICY_DENIED"


@pytest.mark.parametrize("garbage", [b"\xff", CANARY.encode(), b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xc3\x28"])
async def test_garbage_is_an_invalid_argument(path: str, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A request that is not a message reaches neither a handler nor a log."""
    asked = []

    async def note(request: Any, call: Call) -> pb.Lease:
        asked.append(request)
        return pb.Lease()

    async with serving(path, note) as channel:
        failed = await refused(channel.unary_unary(ACQUIRE)(garbage))
    assert (failed.code, failed.reason) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert asked == []
    assert said(caplog) == []


async def test_an_unknown_method_is_unimplemented(path: str) -> None:
    """As the protocol has it, also of a service that is not served here."""
    async with serving(path, break_down) as channel:
        for method in ("/equabot.broker.v1.Broker/StealLease", "/equabot.broker.v1.Admin/Diagnose"):
            assert (await refused(channel.unary_unary(method)(b""))).code == "UNIMPLEMENTED"


@pytest.mark.parametrize("method", [ACQUIRE, STREAM])
async def test_a_caller_that_goes_takes_its_handler_along(path: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """Cancellation reaches the handler as such, at once, and is not an incident."""
    begun, ended = asyncio.Event(), list[BaseException]()

    async def wait(request: Any, call: Call) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise

    async with serving(path, wait) as channel:
        call: Any = (channel.unary_unary(method) if method == ACQUIRE else channel.unary_stream(method))(b"")
        async with asyncio.timeout(60):
            await begun.wait()
        call.cancel()
        await eventually(lambda: bool(ended))
    assert isinstance(ended[0], asyncio.CancelledError)
    assert said(caplog) == []


async def test_a_handler_knows_how_much_time_its_caller_has(path: str) -> None:
    """None where the caller has not said."""
    left = []

    async def look(request: Any, call: Call) -> pb.Lease:
        left.append(call.time_remaining())
        return pb.Lease()

    async with serving(path, look) as channel:
        await channel.unary_unary(ACQUIRE)(b"")
        await channel.unary_unary(ACQUIRE)(b"", timeout=60)
    assert left[0] is None
    assert left[1] is not None
    assert 50 < left[1] < 62  # the wire rounds


def test_a_service_without_a_handler_for_a_method_is_not_built() -> None:
    """Found at the start, not by the first caller."""
    with pytest.raises(KeyError, match="AcquireLease"):
        Service(BROKER, {})
