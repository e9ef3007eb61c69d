"""Following Secrets at a scripted API server: real sockets, every way in which a list or a stream can go wrong."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import repeat
from pathlib import Path

import pytest

from equabot_broker.kube.api import ApiObject, KubeApi
from equabot_broker.kube.watching import ObjectDeleted, ObjectPut, ObjectsListed, WatchEvent, Watching, WatchLost, WatchPace
from tests.fakes.api_server import DEADLINE, ApiServer, Stream, answer, api_server, drop, event, hang, page, refusal, secret
from tests.fakes.clock import FakeClock

SECRETS = "/api/v1/namespaces/apps/secrets"
SELECTED = {"labelSelector": "x=y"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with api_server(tmp_path) as made:
        yield made


class Followed:
    """What the watching says, each with a deadline. Time between tries goes by as fast as the test wants."""

    def __init__(self, events: AsyncGenerator[WatchEvent, None]) -> None:
        self.slept: list[float] = []
        self.events = events

    async def next(self) -> WatchEvent:
        async with asyncio.timeout(DEADLINE):
            return await anext(self.events)

    async def next_event(self) -> object:
        """In short: names and versions."""
        match await self.next():
            case ObjectsListed(objects):
                return [_name(thing) for thing in objects]
            case ObjectPut(thing):
                return _name(thing)
            case ObjectDeleted(name):
                return f"-{name}"
            case WatchLost(fault):
                return fault.reason


def _name(thing: ApiObject) -> str:
    return f"{thing['metadata']['name']}@{thing['metadata']['resourceVersion']}"


@asynccontextmanager
async def following(
    server: ApiServer, *, silence: float = 60.0, within: str = "", pauses: Sequence[float] = ()
) -> AsyncIterator[Followed]:
    api = KubeApi(kubeconfig=server.kubeconfig)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    pace = WatchPace(delays=lambda: iter(pauses or repeat(0.5)), sleep=sleep, chance=lambda: 0.5)
    watching = Watching(api, lambda: SECRETS, params=SELECTED, pace=pace, within=lambda: within, silence=silence)
    async with aclosing(watching.events()) as events:
        followed = Followed(events)
        followed.slept = slept
        try:
            yield followed
        finally:
            await api.close()


async def test_list_comes_before_changes(server: ApiServer) -> None:
    """The watch goes on from the list's version; bookmarks are no news, and what they say is where the next stream begins."""
    first, second = Stream(), Stream()
    server.queue("list", page(secret("a", version="3"), secret("b", version="4"), version="7"))
    server.queue("watch", first, second)
    async with following(server) as followed:
        assert await followed.next_event() == ["a@3", "b@4"]
        first.say(event("ADDED", secret("c", version="8")), event("MODIFIED", secret("a", version="9")))
        assert [await followed.next_event(), await followed.next_event()] == ["c@8", "a@9"]
        first.say(event("DELETED", secret("b", version="10")), event("BOOKMARK", {"metadata": {"resourceVersion": "42"}}))
        assert await followed.next_event() == "-b"
        first.end()
        second.say(event("ADDED", secret("d", version="43")))
        assert await followed.next_event() == "d@43"
    assert server.verbs() == ["list", "watch", "watch"]
    shared = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "450", **SELECTED}
    assert [asked.params for asked in server.asked] == [
        {**SELECTED, "limit": "500"},
        {**shared, "resourceVersion": "7"},
        {**shared, "resourceVersion": "42"},
    ]
    assert followed.slept == []


def test_repr_of_an_event_hides_the_object() -> None:
    """A queue that holds it is printed with what it holds."""
    thing = secret("a", data={"KEY": "c2stYW50"})
    assert "c2stYW50" not in repr((ObjectPut(thing), ObjectsListed((thing,))))


async def test_a_list_in_pages(server: ApiServer) -> None:
    """Is one list."""
    server.queue("list", page(secret("a"), more="x+/="), page(secret("b"), more="y"), page(secret("c"), version="5"))
    server.queue("watch", Stream())
    async with following(server) as followed:
        assert await followed.next_event() == ["a@1", "b@1", "c@1"]
    assert [asked.params.get("continue") for asked in server.asked] == [None, "x+/=", "y", None]
    assert server.asked[-1].params["resourceVersion"] == "5"


async def test_a_list_that_expires_between_its_pages_begins_again(server: ApiServer) -> None:
    """That is no fault, unless it happens again and again."""
    server.queue("list", page(secret("a"), more="x"), refusal(410, "Expired"), page(secret("b")))
    server.queue("watch", Stream())
    async with following(server) as followed:
        assert await followed.next_event() == ["b@1"]
    server.otherwise["list"] = refusal(410, "Expired")
    async with following(server) as followed:
        assert await followed.next_event() == "Expired"


async def test_too_large_page_is_requested_in_smaller_pages(server: ApiServer) -> None:
    """Five hundred objects of a megabyte would not fit."""
    server.queue("list", answer(b"x" * (17 * 2**20)), page(secret("a"), more="m"), page(secret("b")))
    server.queue("watch", Stream())
    async with following(server) as followed:
        assert await followed.next_event() == ["a@1", "b@1"]
    assert [asked.params.get("limit") for asked in server.asked[:3]] == ["500", "62", "62"]


@pytest.mark.parametrize("form", ["refusal", "event", "event after others"])
async def test_expired_history_is_listed_again(server: ApiServer, form: str) -> None:
    """In both forms in which the API says so. It is no loss."""
    stream, expired = Stream(), {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    server.queue("list", page(secret("a")), page(secret("b", version="9"), version="9"))
    if form == "refusal":
        live = Stream()
        live.end()
        server.queue("watch", live, refusal(410, "Expired"))
    else:
        server.queue("watch", stream)
        if form == "event after others":
            stream.say(event("BOOKMARK", {"metadata": {"resourceVersion": "5"}}))
        stream.say(event("ERROR", expired))
    server.queue("watch", Stream())
    async with following(server) as followed:
        assert await followed.next_event() == ["a@1"]
        assert await followed.next_event() == ["b@9"]
    assert server.asked[-1].params["resourceVersion"] == "9"
    assert all(seconds == 0.5 for seconds in followed.slept)


@pytest.mark.parametrize(
    ("verb", "status", "reason"),
    [("list", 403, "Forbidden"), ("watch", 403, "Forbidden"), ("list", 401, "Unauthorized"), ("watch", 500, "InternalError")],
)
async def test_failing_watch_is_lost_until_it_works(server: ApiServer, *, verb: str, status: int, reason: str) -> None:
    """Said with the verb that fails; what can be listed and not watched is not known to be current, so it is not listed."""
    server.otherwise = {"list": page(secret("a")), "watch": Stream()}
    server.queue(verb, *[refusal(status, reason)] * 4)
    async with following(server) as followed:
        lost = await followed.next()
        assert isinstance(lost, WatchLost)
        assert (lost.fault.status, lost.fault.reason) == (status, reason)
        assert f"{verb} secrets" in str(lost.fault) or status == 401
        received = await followed.next_event()
        while received == reason:
            received = await followed.next_event()
        assert received == ["a@1"]


async def test_delays_between_attempts_grow(server: ApiServer) -> None:
    """Until it works, which a stream proves that says something; who asks to be left alone for longer is."""
    server.queue("list", *[refusal(500)] * 3, refusal(429, headers={"Retry-After": "20"}), page(), page())
    stream = Stream()
    server.queue("watch", stream, refusal(500), Stream())
    async with following(server, pauses=[1.0, 2.0, 4.0, 8.0]) as followed:
        assert [await followed.next_event() for _ in range(5)] == ["InternalError"] * 3 + ["TooManyRequests", []]
        assert followed.slept == [1.0, 2.0, 4.0, 28.0]
        stream.say(event("ADDED", secret("a")))
        assert await followed.next_event() == "a@1"
        stream.end()
        assert [await followed.next_event(), await followed.next_event()] == ["InternalError", []]
        assert followed.slept[4:] == [1.0]


async def test_broken_stream_is_opened_again(server: ApiServer) -> None:
    """From where it was: a connection that ends, however it does, is no news where the next one opens."""
    first, second = Stream(), Stream()
    server.queue("list", page(version="1"))
    server.queue("watch", first, drop, second)
    server.queue("list", page(secret("a", version="5"), version="5"))
    async with following(server) as followed:
        assert await followed.next_event() == []
        first.write(b'{"type": "ADDED", "obj')
        first.end()
        assert await followed.next_event() == "Unreachable"
        assert await followed.next_event() == ["a@5"]
    assert server.verbs() == ["list", "watch", "watch", "list", "watch"]


async def test_a_server_that_falls_silent_is_noticed(server: ApiServer) -> None:
    """The stream is opened anew after a silence; that nobody answers is the loss. One that was only quiet goes on."""
    quiet, second = Stream(), Stream()
    server.queue("list", page(version="1"))
    server.queue("watch", quiet, second, hang)
    async with following(server, silence=0.2) as followed:
        assert await followed.next_event() == []
        second.say(event("ADDED", secret("a", version="2")))
        assert await followed.next_event() == "a@2"
        waiting = asyncio.ensure_future(followed.next_event())
        await server.until(lambda asked: len(asked) == 4)
        assert await waiting == "Unreachable"
    assert server.verbs() == ["list", "watch", "watch", "watch"]
    assert server.asked[-1].params["resourceVersion"] == "2"


async def test_closing_proxy_gets_no_busy_loop(server: ApiServer) -> None:
    """There is a pause after every stream that carried nothing."""
    ended = [Stream() for _ in range(5)]
    for stream in ended:
        stream.end()
    server.queue("list", page(), page())
    server.queue("watch", *ended, Stream())
    async with following(server) as followed:
        assert [await followed.next_event() for _ in range(2)] == [[], []]
        waiting = asyncio.ensure_future(followed.next_event())
        await server.until(lambda asked: len(asked) == 8)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert followed.slept == [0.5] * 5


async def test_streams_that_never_carry_anything_are_not_believed(server: ApiServer) -> None:
    """Something between here and the server opens them and keeps what they should bring: what there is shows in a list."""
    server.queue("list", page(), page(secret("a", version="9"), version="9"))
    server.queue("watch", *(Stream() for _ in range(5)))
    async with following(server, silence=0.1) as followed:
        assert [await followed.next_event() for _ in range(2)] == [[], ["a@9"]]
    assert server.verbs() == ["list", *["watch"] * 4, "list", "watch"]


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\n",
        b'{"type": "ADDED"}\n',
        b'{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"resourceVersion": "5"}}}\n',
        b'{"type": "SOMETHING", "object": {"metadata": {"name": "x", "resourceVersion": "5"}}}\n',
        b'{"type": "ERROR", "object": {"code": "410"}}\n',
    ],
)
async def test_a_stream_of_nonsense_is_a_loss(server: ApiServer, raw: bytes) -> None:
    """And is listed anew: nothing of it is guessed."""
    stream = Stream()
    server.queue("list", page(), page(secret("a")))
    server.queue("watch", stream, Stream())
    stream.write(raw)
    async with following(server) as followed:
        assert [await followed.next_event() for _ in range(3)] == [[], "Malformed", ["a@1"]]


@pytest.mark.parametrize(
    "body", [{}, {"metadata": {}, "items": []}, {"metadata": {"resourceVersion": "1"}, "items": [{}]}, {"items": "x"}]
)
async def test_a_list_that_is_none_is_a_loss(server: ApiServer, body: ApiObject) -> None:
    """As when the URL leads to something else that answers in JSON."""
    server.otherwise["list"] = answer(body)
    async with following(server) as followed:
        assert await followed.next_event() == "Malformed"


async def test_a_namespace_that_is_not_there_is_missed(server: ApiServer) -> None:
    """Its list is empty, as that of any other; who may not look does not know."""
    server.otherwise = {"list": page(), "watch": Stream()}
    server.queue("get", refusal(404, "NotFound"), refusal(403, "Forbidden"))
    async with following(server, within="/api/v1/namespaces/apps") as followed:
        lost = await followed.next()
        assert isinstance(lost, WatchLost)
        assert "cannot get namespaces apps: the object does not exist" in str(lost.fault)
        assert await followed.next_event() == []


async def test_watch_ends_with_its_reader(server: ApiServer) -> None:
    """At once, in a pause as well as in a stream."""
    clock = FakeClock()
    api = KubeApi(kubeconfig=server.kubeconfig)
    pace = WatchPace(delays=lambda: repeat(1.0), sleep=clock.sleep, chance=lambda: 0.0)
    for listed, heard in ((refusal(500), 1), (page(), 1), (hang, 0)):
        server.otherwise = {"list": listed, "watch": Stream()}
        server.asked.clear()
        events = Watching(api, lambda: SECRETS, params={}, pace=pace).events()
        for _ in range(heard):
            await anext(events)
        waiting = asyncio.ensure_future(anext(events))
        await server.until(bool)
        waiting.cancel()
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([waiting])
            await events.aclose()
        assert waiting.cancelled()
    await api.close()
