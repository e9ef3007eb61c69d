"""The metrics server among strangers: what they can make it hold is bounded, and a scrape is answered all the same."""

import asyncio
import gzip
import resource
import select
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest

from equabot_broker.telemetry import _metrics_server
from equabot_broker.telemetry._metrics_server import CONNECTIONS, CONNECTIONS_PER_PEER
from equabot_broker.telemetry.metrics import CredentialGauge, Metrics, Snapshot
from tests.fakes.engine import Engine

MANY = Snapshot(
    credentials=[CredentialGauge(profile=f"acme:{number:06}", provider="acme", state="ok") for number in range(40_000)]
)
"""An answer of 3 MB: more than the kernel takes for a scraper that does not read."""
REQUEST = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Scraped:
    """A metrics server, and connections to it that end with the test."""

    def __init__(self, port: int, stack: AsyncExitStack) -> None:
        self.port = port
        self._stack = stack

    async def connect(self, sent: bytes = b"", *, source: str = "127.0.0.1") -> Pair:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0), limit=4096)
        self._stack.callback(writer.close)
        writer.write(sent)
        return reader, writer

    async def scrape(self, request: bytes = REQUEST, *, source: str = "127.0.0.1") -> bytes:
        reader, _ = await self.connect(request, source=source)
        async with asyncio.timeout(60):
            return await reader.read(-1)


@pytest.fixture
async def scraped(request: pytest.FixtureRequest) -> AsyncIterator[Scraped]:
    server = Metrics(version="1").serve(
        "127.0.0.1", 0, snapshot=lambda: getattr(request, "param", Snapshot()), health=Engine().readiness
    )
    async with AsyncExitStack() as stack:
        stack.callback(server.close)
        yield Scraped(server.port, stack)


async def ended(pairs: list[Pair]) -> int:
    """How many connections the server has ended by now, once at least one has."""
    reads = [asyncio.ensure_future(reader.read(1)) for reader, _ in pairs]
    done, waiting = await asyncio.wait(reads, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    for read in waiting:
        read.cancel()
    for read in done:
        with suppress(ConnectionError):
            assert read.result() == b""
    return len(done)


async def test_a_connection_costs_no_thread(scraped: Scraped) -> None:
    """S18: neither one that says nothing, nor one that says half, nor one that does not read."""
    before = threading.active_count()
    for sent in (b"", b"GET /metr", REQUEST) * 100:
        await scraped.connect(sent)
    assert b"equabot_build_info" in await scraped.scrape()
    assert threading.active_count() <= before  # a thread of an earlier test may end


async def test_a_scraper_without_a_descriptor_waits_for_one(scraped: Scraped, caplog: pytest.LogCaptureFixture) -> None:
    """S18, S9: it is logged once a second, not for each of 100 tries, and the scrape is answered when there are some."""
    assert b"equabot_build_info" in await scraped.scrape()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        try:
            client.connect(("127.0.0.1", scraped.port))
            async with asyncio.timeout(60):
                while not caplog.records:  # noqa: ASYNC110 - what is waited for has no event
                    await asyncio.sleep(0.002)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert b"equabot_build_info" in await scraped.scrape()
    assert len(caplog.records) <= 2  # Python 3.14 tries once more
    assert {record.getMessage() for record in caplog.records} == {"socket.accept"}


async def test_strangers_do_not_starve_a_scraper(scraped: Scraped) -> None:
    """S18: silent connections of one peer are few, and their newest and those of other peers are served."""
    silent = [await scraped.connect() for _ in range(CONNECTIONS_PER_PEER + 5)]
    assert b"equabot_build_info" in await scraped.scrape()
    assert await ended(silent[:6]) == 6
    silent += [await scraped.connect(source=f"127.0.0.{number}") for number in range(2, CONNECTIONS + 20)]
    assert b"equabot_build_info" in await scraped.scrape(source="127.0.0.250")


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"])
async def test_a_request_has_a_deadline(scraped: Scraped, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """S18: from the connection to the empty line."""
    monkeypatch.setattr(_metrics_server, "_REQUEST_WITHIN", 0.01)
    with suppress(ConnectionResetError):  # the server may end it before this side has seen that it is connected
        assert await ended([await scraped.connect(sent)]) == 1


@pytest.mark.parametrize("scraped", [MANY], indirect=True)
async def test_a_scraper_that_does_not_read_is_left(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    """S18: the answer is not held for it; one that reads gets the whole."""
    monkeypatch.setattr(_metrics_server, "_ANSWER_WITHIN", 60.0)
    whole = await scraped.scrape()
    assert len(whole) > 3_000_000
    monkeypatch.setattr(_metrics_server, "_ANSWER_WITHIN", 0.3)
    with socket.create_connection(("127.0.0.1", scraped.port)) as slow:
        slow.sendall(REQUEST)
        reset = select.poll()
        reset.register(slow, select.POLLHUP | select.POLLERR)
        assert await asyncio.to_thread(reset.poll, 20_000), "the server ends it, although most is not read"
    monkeypatch.undo()
    assert b"equabot_build_info" in await scraped.scrape(source="127.0.0.2")


async def test_an_endless_request_is_refused(scraped: Scraped) -> None:
    """S18: at 8 KiB, without its end."""
    answer = await scraped.scrape(b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_refusal_says_what_to_do(scraped: Scraped) -> None:
    """S22: and shows no metric."""
    answer = await scraped.scrape(REQUEST.replace(b"127.0.0.1", b"evil.example"))
    assert answer.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    assert b"scrape the address, or NAME.NAMESPACE.svc" in answer
    assert b"equabot_" not in answer


async def test_an_answer_is_as_the_scraper_accepts_it(scraped: Scraped) -> None:
    """Compressed, in OpenMetrics, without its body for HEAD."""
    plain = await scraped.scrape()
    assert b"Content-Type: text/plain; version=" in plain
    packed = await scraped.scrape(REQUEST.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n"))
    assert b"equabot_build_info" in gzip.decompress(packed.partition(b"\r\n\r\n")[2])
    accepting = b"\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    assert (await scraped.scrape(REQUEST.replace(b"\r\n\r\n", accepting))).endswith(b"# EOF\n")
    nothing = await scraped.scrape(REQUEST.replace(b"GET", b"HEAD"))
    assert nothing.startswith(b"HTTP/1.1 200 OK")
    assert nothing.endswith(b"\r\n\r\n")
