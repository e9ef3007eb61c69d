"""Secrets followed at a scripted API server: which requests, which events, and what becomes of what cannot be read."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, ValueLocation
from equabot_broker.domain.material import SourceUnavailable, UnitsListed
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.sources.kubernetes import KubernetesOptions, KubernetesSecrets
from tests.fakes.api_server import ApiServer, Handler, Stream, answer, api_server, event, page, refusal, secret
from tests.fakes.following import UNSHAPED, following

LABEL = "equabot.dev/credential=true"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with api_server(tmp_path) as made:
        yield made


def source(server: ApiServer, *, rules: DiscoveryRules | None = None, **options: object) -> KubernetesSecrets:
    chosen = KubernetesOptions(kubeconfig=server.kubeconfig, **options)  # type: ignore[arg-type]
    return KubernetesSecrets(chosen, rules=rules or DiscoveryRules(UNSHAPED), clock=SystemClock())


def openai(name: str, key: str, *, version: str = "1") -> dict[str, object]:
    return secret(name, version=version, data={"OPENAI_API_KEY": base64.b64encode(key.encode()).decode()})


def by_request(**handlers: Handler) -> Handler:
    """Answers by what is selected: `named` by name, else `selected`."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        return await handlers[name or "selected"](request)

    return handle


async def test_secrets_come_change_and_go(server: ApiServer) -> None:
    """Each is a unit; what changes nothing of a credential is no event."""
    stream = Stream()
    server.queue("list", page(openai("a", "k1")))
    server.queue("watch", stream)
    async with following(source(server)) as events:
        assert await events.next() == {"a": {"openai:a": "k1"}}
        stream.say(event("MODIFIED", openai("a", "k1", version="2")))
        stream.say(event("MODIFIED", openai("a", "k2", version="3")))
        assert await events.next() == ("a", {"openai:a": "k2"})
        stream.say(event("ADDED", openai("b", "k3")))
        assert await events.next() == ("b", {"openai:b": "k3"})
        stream.say(event("DELETED", openai("unknown", "x")), event("DELETED", openai("a", "k2")))
        assert await events.next() == "a"
    assert [asked.params.get("labelSelector") for asked in server.asked] == [LABEL, LABEL]
    assert {asked.path for asked in server.asked} == {"/api/v1/namespaces/apps/secrets"}


async def test_a_secret_that_becomes_unusable_fails_alone(server: ApiServer) -> None:
    """As a whole, with why; mended, it serves again."""
    stream = Stream()
    server.queue("list", page(openai("a", "k1"), openai("b", "k2")))
    server.queue("watch", stream)
    async with following(source(server)) as events:
        await events.event()
        stream.say(event("MODIFIED", secret("a", data={"OPENAI_API_KEY": "!"})))
        broken = await events.event()
        assert isinstance(broken, UnitsListed)
        assert broken.failed == {"a": "Secret apps/a OPENAI_API_KEY is not base64, which the data of a Secret must be"}
        assert [unit.name for unit in broken.units] == ["b"]
        stream.say(event("MODIFIED", openai("a", "k1")))
        assert await events.next() == ("a", {"openai:a": "k1"})


async def test_names_are_requests_of_their_own(server: ApiServer) -> None:
    """The form that `resourceNames` allow. With names there is no selector unless it is given."""
    server.otherwise = {"list": by_request(a=page(openai("a", "k1")), b=page()), "watch": Stream(), "get": answer({})}
    async with following(source(server, names=("a", "b"), namespace="other")) as events:
        assert await events.next() == {"a": {"openai:a": "k1"}}
    assert {asked.params.get("fieldSelector") for asked in server.asked if asked.verb == "watch"} == {
        "metadata.name=a",
        "metadata.name=b",
    }
    assert {asked.path for asked in server.asked if asked.verb != "get"} == {"/api/v1/namespaces/other/secrets"}


async def test_a_selector_and_names_find_a_secret_once(server: ApiServer) -> None:
    """A configured profile's Secret is followed by its name, whether or not it is selected: by its name alone, so that two
    streams never tell of it in turns."""
    selected, named = Stream(), Stream()
    rules = DiscoveryRules(
        UNSHAPED,
        bindings={ValueLocation("kubernetes", "a", "odd"): "openai:prod", ValueLocation("mounted", "c", "x"): "openai:c"},
    )
    odd = secret("a", data={"odd": base64.b64encode(b"k1").decode()})
    server.otherwise = {
        "list": by_request(selected=page(odd, openai("b", "k2")), a=page(odd)),
        "watch": by_request(selected=selected, a=named),
    }
    async with following(source(server, rules=rules)) as events:
        assert await events.next() == {"a": {"openai:prod": "k1"}, "b": {"openai:b": "k2"}}
        selected.say(event("DELETED", odd), event("DELETED", openai("b", "k2")))
        assert await events.next() == "b"
        named.say(event("DELETED", odd))
        assert await events.next() == "a"


async def test_what_is_forbidden_alone_fails_alone(server: ApiServer) -> None:
    """One name of two: the other serves; allowed, it is there."""
    allowed = asyncio.Event()

    async def guarded(request: web.BaseRequest) -> web.StreamResponse:
        return await (page(openai("b", "k2")) if allowed.is_set() else refusal(403, "Forbidden"))(request)

    server.otherwise = {"list": by_request(a=page(openai("a", "k1")), b=guarded), "watch": Stream()}
    async with following(source(server, names=("a", "b"))) as events:
        first = await events.event()
        assert isinstance(first, UnitsListed)
        assert [unit.name for unit in first.units] == ["a"]
        assert "may not list secrets b in namespace apps: grant its account the verb list" in first.failed["b"]
        allowed.set()
        assert await events.next() == {"a": {"openai:a": "k1"}, "b": {"openai:b": "k2"}}


async def test_a_selector_that_is_forbidden_is_told_by_itself(server: ApiServer) -> None:
    """It has no Secrets whose fault it could be."""
    server.otherwise = {
        "list": by_request(a=page(openai("a", "k1")), selected=refusal(403, "Forbidden")),
        "watch": Stream(),
    }
    async with following(source(server, names=("a",), selector="x=y")) as events:
        assert await events.next() == {"a": {"openai:a": "k1"}, "selector x=y": "failed"}


async def test_the_source_is_unavailable_while_nothing_can_be_read(server: ApiServer) -> None:
    """From the start or later, said once and not with every try; listed again when it can be."""
    server.otherwise = {"list": refusal(500), "watch": Stream()}
    async with following(source(server)) as events:
        down = await events.event()
        assert isinstance(down, SourceUnavailable)
        assert "failed to list secrets in namespace apps (500 InternalError): see the log" in down.fault
        await server.until(lambda asked: len(asked) == 2)
        assert events.silent
        server.otherwise["list"] = page(openai("a", "k1"))
        assert await events.next() == {"a": {"openai:a": "k1"}}


async def test_many_reasons_are_told_in_short(server: ApiServer) -> None:
    """The first few, and how many more."""
    server.otherwise = {"list": refusal(403, "Forbidden")}
    async with following(source(server, names=tuple("abcde"))) as events:
        down = await events.event()
    assert isinstance(down, SourceUnavailable)
    assert down.fault.count("may not list secrets") == 3
    assert down.fault.endswith("; and 2 more")


async def test_a_reread_lists_everything_anew(server: ApiServer) -> None:
    """Also one that is unavailable is told again, at once and not after its pause."""
    server.otherwise = {"list": by_request(a=page(openai("a", "k1")), b=page()), "watch": Stream()}
    followed = source(server, names=("a", "b"))
    async with following(followed) as events:
        first = await events.event()
        followed.reread()
        assert await events.event() == first
        server.otherwise["list"] = refusal(429, "TooManyRequests", headers={"Retry-After": "250"})
        followed.reread()
        down = await events.event()
        assert isinstance(down, SourceUnavailable)
        followed.reread()
        assert await events.event() == down
        server.otherwise["list"] = page()
        followed.reread()
        assert await events.next() == {}
    assert server.verbs().count("list") == 10


async def test_nothing_is_told_before_everything_was_asked(server: ApiServer) -> None:
    """A Secret whose request is slow is not gone meanwhile."""
    go = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        await go.wait()
        return await page(openai("b", "k2"))(request)

    server.otherwise = {"list": by_request(a=page(openai("a", "k1")), b=slow), "watch": Stream()}
    async with following(source(server, names=("a", "b"))) as events:
        assert events.silent
        await server.until(lambda asked: [each.verb for each in asked].count("watch") == 1)
        assert events.silent
        go.set()
        assert await events.next() == {"a": {"openai:a": "k1"}, "b": {"openai:b": "k2"}}


async def test_a_namespace_of_nobody_is_told(server: ApiServer) -> None:
    """Where it is not the broker's own, which is there."""
    server.otherwise = {"list": page(), "watch": Stream(), "get": refusal(404, "NotFound")}
    async with following(source(server, namespace="nowhere")) as events:
        assert "cannot get namespaces nowhere: the object does not exist" in str(await events.next())
    async with following(source(server, namespace="apps")) as events:
        assert await events.next() == {}


async def test_an_object_that_is_no_secret_leaks_nothing(server: ApiServer) -> None:
    """A server that answers nonsense is unavailable, in words of ours."""
    server.otherwise = {"list": answer({"kind": "List", "items": [{"data": "sk-ant-api03-CANARY"}]})}
    async with following(source(server)) as events:
        assert "CANARY" not in str(await events.next())


async def test_nobody_is_connected_once_it_ends(server: ApiServer) -> None:
    """Wherever it was: in a list, in a stream, in a pause."""
    hold: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    for hold in (Stream(), refusal(500)):
        server.otherwise = {"list": page(), "watch": hold}
        async with following(source(server)) as events:
            await events.event()
    assert not [task for task in asyncio.all_tasks() if "kubernetes" in task.get_name()]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "kubernetes"),
        ({"selector": LABEL}, "kubernetes"),
        ({"namespace": "apps", "selector": "a=b"}, "kubernetes namespace=apps selector=a=b"),
        ({"names": ("a", "b"), "kubeconfig": Path("/k")}, "kubernetes names=a,b kubeconfig=/k"),
        ({"names": ("a",), "selector": LABEL}, f"kubernetes selector={LABEL} names=a"),
    ],
)
def test_it_is_called_after_what_it_reads(options: dict[str, object], name: str) -> None:
    """In short where it reads what is usual."""
    assert KubernetesOptions(**options).shown == name  # type: ignore[arg-type]
