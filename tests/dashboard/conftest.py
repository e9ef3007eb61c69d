"""A dashboard's server for tests, in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from equabot_broker.dashboard.access import PageAccess
from equabot_broker.dashboard.board import Board
from equabot_broker.dashboard.document import read_document
from equabot_broker.dashboard.server import DashboardServer
from equabot_broker.telemetry.redaction import Redactor

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, or the head of a stream."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Served:
    """A server, and connections to it that end with the test."""

    server: DashboardServer
    access: PageAccess
    board: Board
    pairs: list[Pair] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def connect(self, data: bytes = b"") -> Pair:
        pair = await asyncio.open_connection("127.0.0.1", self.server.port)
        self.pairs.append(pair)
        pair[1].write(data)
        return pair

    def request(self, path: str, method: str = "GET", **headers: str) -> bytes:
        """A request's bytes; the names of headers with `_` for `-`."""
        fields = {"Host": self.host} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = (f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value), "", "")
        return "\r\n".join(lines).encode()

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """What the server answers, to its end."""
        reader, _ = await self.connect(self.request(path, method, **headers))
        async with asyncio.timeout(60):
            return _parsed(await reader.read(-1))

    async def open(self) -> dict[str, str]:
        """The headers of the session."""
        answer = await self.ask("/session", Equabot_Token=self.access.token)
        assert answer.status == 200, answer
        key = answer.body.decode().split('"')[3]
        return {"Cookie": answer.headers["set-cookie"].partition(";")[0], "Equabot_Page_Key": key}

    async def stream(self, session: Mapping[str, str]) -> Pair:
        """A stream of events, after its head."""
        pair = await self.connect(self.request("/events", **session))
        async with asyncio.timeout(60):
            head = await pair[0].readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), head
            assert await pair[0].readuntil(b"\n\n") == b"retry: 1000\n\n"
        return pair


def _parsed(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in fields)
    return Answer(int(status.split(" ")[1]), {name.lower(): value for name, _, value in pairs}, body)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    access, board = PageAccess(), Board(redact=Redactor().text)
    server = DashboardServer(port=0, access=access, board=board, document=read_document())
    stop = asyncio.Event()
    found = Served(server, access, board)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(stop))
        await asyncio.sleep(0)
        yield found
        stop.set()
    for _, writer in found.pairs:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
