"""An API server over HTTP that says what a test tells it to: real sockets, scripted answers, misbehaviour included."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

Json = dict[str, Any]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came: `verb` as access rules call it."""

    verb: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class Stream:
    """A watch that a test feeds, line by line. It stays open until `end`."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, *events: Json) -> None:
        """Sends events."""
        for event in events:
            self._lines.put_nowait(json.dumps(event).encode() + b"\n")

    def write(self, raw: bytes) -> None:
        """Sends bytes as they are."""
        self._lines.put_nowait(raw)

    def end(self) -> None:
        """Ends the stream as a server does whose `timeoutSeconds` are over."""
        self._lines.put_nowait(None)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while (line := await self._lines.get()) is not None:
            await response.write(line)
        return response


def answer(body: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Handler:
    """An answer of JSON; bytes go as they are."""

    async def handle(_: web.BaseRequest) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return web.Response(body=raw, status=status, headers=headers, content_type="application/json")

    return handle


def refusal(status: int, reason: str = "", *, message: str = "", headers: Mapping[str, str] | None = None) -> Handler:
    """A `Status` as the API gives it."""
    told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason, "message": message}
    return answer(told, status=status, headers=headers)


def page(*objects: Json, version: str = "1", more: str = "") -> Handler:
    """A page of a list."""
    metadata = {"resourceVersion": version} | ({"continue": more} if more else {})
    return answer({"kind": "SecretList", "metadata": metadata, "items": list(objects)})


def secret(name: str, *, version: str = "1", data: Mapping[str, str] | None = None, **metadata: Any) -> Json:
    """A Secret. Its data is base64 already."""
    return {"metadata": {"name": name, "namespace": "apps", "resourceVersion": version, **metadata}, "data": dict(data or {})}


def event(kind: str, thing: Json) -> Json:
    """An event of a watch."""
    return {"type": kind, "object": thing}


async def hang(_: web.BaseRequest) -> web.StreamResponse:
    """No answer, for as long as the caller waits."""
    await asyncio.Event().wait()
    raise AssertionError


async def drop(request: web.BaseRequest) -> web.StreamResponse:
    """The connection is closed instead of an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


class ApiServer:
    """Answers each verb (`list`, `watch`, `get`, `create`, `update`, `patch`, `delete`) with what was queued for it, in order;
    what is set in `otherwise` answers whatever nothing is queued for. Anything else is a 404."""

    def __init__(self, port: int, directory: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.otherwise: dict[str, Handler] = {}
        self.kubeconfig = directory / "kubeconfig"
        self._queued: dict[str, deque[Handler]] = {}
        self._came = asyncio.Condition()

    def queue(self, verb: str, *handlers: Handler) -> None:
        """These answer the next requests of the verb."""
        self._queued.setdefault(verb, deque()).extend(handlers)

    def verbs(self) -> list[str]:
        """What was asked so far."""
        return [asked.verb for asked in self.asked]

    async def until(self, came: Callable[[list[Asked]], bool]) -> None:
        """Returns once that was asked."""
        async with asyncio.timeout(DEADLINE), self._came:
            await self._came.wait_for(lambda: came(self.asked))

    def configure(self, user: Mapping[str, str] | None = None, *, namespace: str = "apps") -> Path:
        """Writes the kubeconfig that leads here."""
        content = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": dict(user or {})}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(content))
        return self.kubeconfig

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Whatever comes."""
        verb = _verb(request)
        body = await request.json() if request.can_read_body else None
        self.asked.append(Asked(verb, request.path, dict(request.query), dict(request.headers), body))
        async with self._came:
            self._came.notify_all()
        waiting = self._queued.get(verb)
        handler = waiting.popleft() if waiting else self.otherwise.get(verb, refusal(404, "NotFound"))
        return await handler(request)


@asynccontextmanager
async def api_server(directory: Path) -> AsyncIterator[ApiServer]:
    """One on a port of its own, whose kubeconfig is in the directory."""
    made: list[ApiServer] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await made[0].handle(request)

    server = web.Server(handle, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.append(ApiServer(runner.addresses[0][1], directory))
        made[0].configure()
        yield made[0]
    finally:
        await runner.cleanup()


def _verb(request: web.BaseRequest) -> str:
    if request.method != "GET":
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[request.method]
    if request.query.get("watch"):
        return "watch"
    parts = request.path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    return "get" if len(rest) % 2 == 0 else "list"
