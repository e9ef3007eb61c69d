"""Secrets of a cluster show nothing: what is in them in the wrong form or place, an API server that quotes, the broker's own
token; and what the broker writes into them itself."""

import asyncio
import base64
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from equabot.broker.v1 import admin_pb2, broker_pb2
from tests.fakes.api_server import ApiServer, Handler, Json, Stream, answer, api_server, page, secret
from tests.fakes.token_endpoint import TokenEndpoint
from tests.journeys.canaries import KEY, TOKEN, Canaries
from tests.journeys.running import RunningBroker
from tests.journeys.showing import ADMIN, BROKER, TALKATIVE, answered_by, ask, channel_to, left_by, said, shown_by
from tests.kubernetes.api import Api

LABEL: Final = {"equabot.dev/credential": "true"}
READS: Final[Json] = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "update"]}
GOOD: Final = ("dotenv", "odd-store", "marked", "named-so")
"""Those of which nothing, or not everything, is wrong."""
STATUSES: Final = {
    401: "does not accept the credentials of this process",
    403: "may not list secrets",
    429: "is too busy to list secrets",
    500: "failed to list secrets",
    400: "refused to list secrets",
    404: "cannot list secrets",
}
LOCKS: Final[Json] = {
    "apiGroups": ["coordination.k8s.io"],
    "resources": ["leases"],
    "verbs": ["get", "create", "update"],
}
CONFIG: Final = """\
sources: [{{kubernetes: {{kubeconfig: kubeconfig{more}}}}}]
providers: {{acme: {{base_url: "https://acme.example", token_url: "{token_url}", client_id: cli}}}}
required: [anthropic]
"""


def annotated(**said: str) -> dict[str, str]:
    return {f"equabot.dev/{name.replace('_', '-')}": text for name, text in said.items()}


def odd_secrets(canaries: Canaries) -> dict[str, tuple[dict[str, str | bytes], dict[str, str]]]:
    """Data and annotations, by the name of the Secret."""

    def new(way: str, like: str = KEY) -> str:
        return canaries.new(way, like=like)

    store = {"type": "api_key", "provider": "openai", "key": [new("a list for a key")]}
    expiring = {"type": "token", "provider": "anthropic", "token": new("an odd end", TOKEN), "expires": new("an end", "{}")}
    return {
        "binary": ({"ANTHROPIC_API_KEY": b"\xff\xfe" + new("binary").encode()}, {}),
        "unknown": ({"password": new("an unknown key"), "tls.key": new("a TLS key", "{}")}, {}),
        "long": ({"ANTHROPIC_API_KEY": new("a long value") + "x" * 100_000}, {}),
        "two-lines": ({"ANTHROPIC_API_KEY": f"{new('a line')}\n{new('another line')}"}, {}),
        "of-another": ({"OPENAI_API_KEY": new("another provider's")}, {}),
        "placeholder": ({"OPENAI_API_KEY": f"${{{new('a placeholder', '{}')}}}"}, {}),
        "torn": ({"auth-profiles.json": json.dumps({"profiles": {"a:b": {"key": new("a torn store")}}})[:-3]}, {}),
        "odd-store": ({"auth-profiles.json": json.dumps({"profiles": {"openai:x": store, "anthropic:e": expiring}})}, {}),
        "no-store": ({"auth-profiles.json": json.dumps([new("no store")])}, {}),
        "no-login": ({".credentials.json": json.dumps({"claudeAiOauth": {"accessToken": [new("no login", TOKEN)]}})}, {}),
        "no-dotenv": ({".env": f"ANTHROPIC_API_KEY {new('no line')}\n"}, {}),
        "dotenv": ({".env": f"ANTHROPIC_API_KEY='{new('half a quote')}\n"}, {}),
        "conflict": ({"ANTHROPIC_API_KEY": new("a conflict")}, annotated(provider="groq")),
        "two-owners": ({"ANTHROPIC_API_KEY": new("of two")}, annotated(provider="groq", profile="openai:x")),
        "mode": ({"ANTHROPIC_API_KEY": new("of a mode")}, annotated(mode=new("a mode", "{}"))),
        "end": ({"ANTHROPIC_API_KEY": new("of an end")}, annotated(expires_at=new("an instant", "{}"))),
        "owner": ({"k": new("of nobody")}, annotated(provider=new("an owner"))),
        "owner-2": ({"k": new("of nobody else")}, annotated(provider=new("an opaque owner", "{}"))),
        "profile": ({"ANTHROPIC_API_KEY": new("of a profile")}, annotated(profile=f"{new('a profile', '{}')}: x")),
        "token": ({"ANTHROPIC_API_KEY": new("a token for a key", TOKEN)}, annotated(mode="api_key")),
        "marked": ({"ANTHROPIC_API_KEY": new("marked")}, annotated(pending_refresh=new("a mark", "{}"))),
        "named-so": ({new("a key's name"): new("its value")}, annotated(provider="anthropic")),
        "misplaced": ({new("a misplaced name"): "changeme"}, annotated(provider="anthropic")),
        "twice-a": ({"GROQ_API_KEY": new("claimed", "gsk_{}")}, annotated(profile="prod")),
        "twice-b": ({"GROQ_API_KEY": new("claimed as well", "gsk_{}")}, annotated(profile="prod")),
    }


def _garbage(canaries: Canaries) -> Iterator[object]:
    """Answers to a list."""
    word = canaries.new("a word")
    yield f"<html>{word}</html>".encode()
    yield b"\xff" + word.encode()
    yield [word]
    yield {"items": word, "metadata": {"resourceVersion": word}}
    yield {"items": [word], "metadata": {"resourceVersion": "1"}}
    yield {"kind": word, word: word}


def _misshapen(canaries: Canaries) -> Iterator[Json]:
    """Secrets that no real server has."""
    yield secret("numbers", data={"ANTHROPIC_API_KEY": 17, "OPENAI_API_KEY": canaries.new("beside a number")})  # type: ignore[dict-item]
    yield secret("no-base64", data={"ANTHROPIC_API_KEY": canaries.new("no base64", like="{}!")})
    yield secret("lists", annotations={"equabot.dev/provider": [canaries.new("an annotation")]})
    yield {"metadata": {"name": "no-map", "resourceVersion": "1"}, "data": canaries.new("no map")}


class World:
    """A broker that reads the Secrets of a namespace, and all that could come out of it."""

    def __init__(self, kubeconfig: Path, *, token_url: str = "https://acme.example/token", more: str = "") -> None:
        self.canaries = Canaries()
        self.broker = RunningBroker(credentials={}, dotenv="", config=CONFIG.format(token_url=token_url, more=more))
        (self.broker.home / "kubeconfig").write_bytes(kubeconfig.read_bytes())
        self.broker.environ |= TALKATIVE

    def refusals(self, *providers: str) -> dict[str, str | bytes]:
        """What an agent is told who asks for one of these."""
        told: dict[str, str | bytes] = {}
        with channel_to(self.broker) as channel:
            for provider in providers:
                request = broker_pb2.AcquireLeaseRequest(provider=provider)
                _, told[f"acquire {provider}"] = ask(channel, f"{BROKER}/AcquireLease", request, broker_pb2.Lease)
        return told

    def shown(self) -> dict[str, str | bytes]:
        return shown_by(self.broker, "kubeconfig") | self.refusals("anthropic", "openai", "groq", "acme")

    def leaks(self, shown: dict[str, str | bytes]) -> dict[str, set[str]]:
        return self.canaries.leaks(shown)


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.broker.close()


def reload(broker: RunningBroker) -> str:
    """Has the sources read again; what the operator is told."""
    with channel_to(broker, "admin") as operator:
        return "".join(ask(operator, f"{ADMIN}/Reload", admin_pb2.ReloadRequest(), admin_pb2.ReloadResponse))


def test_what_is_wrong_in_a_secret_is_told_without_a_byte_of_it(
    cluster: Api, namespace: str, worlds: list[World], tmp_path: Path
) -> None:
    """Nor of the token that the broker reads them with; also once it may no longer read them, and once its account is gone."""
    account = cluster.service_account(namespace, "broker", rules=[READS])
    worlds.append(world := World(cluster.kubeconfig(tmp_path / "k", user=account.user, namespace=namespace)))
    world.canaries.add("the broker's token", account.token)
    good = world.canaries.new("a good key", like=KEY)
    cluster.secret(namespace, "good", {"ANTHROPIC_API_KEY": good}, labels=LABEL)
    odd = odd_secrets(world.canaries)
    for name, (data, annotations) in odd.items():
        cluster.secret(namespace, name, data, labels=LABEL, annotations=annotations)
    broker = world.broker.start("-vv")
    assert broker.run("key", "anthropic:good").stdout.strip() == good
    shown = world.shown()
    told = str(shown["commands"])
    assert [name for name in odd if name not in told and name not in GOOD] == []
    cluster.service_account(namespace, "broker", rules=[])
    broker.wait_for(lambda: bool(reload(broker)) and "may not list secrets" in broker.log())
    shown |= {f"{where}, forbidden": what for where, what in answered_by(broker).items()}
    cluster.delete("ServiceAccount", "broker", namespace=namespace)
    broker.wait_for(lambda: bool(reload(broker)) and "does not accept the credentials" in broker.log())
    shown |= {f"{where}, unknown": what for where, what in world.shown().items()}
    assert world.leaks(shown) == {}


async def quoted(request: web.BaseRequest, status: int) -> web.StreamResponse:
    """A `Status` that says what was sent."""
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    said = f"not with {sent}"
    details = {"name": sent, "kind": sent, "causes": [{"reason": sent, "message": said, "field": sent}]}
    told = {"kind": "Status", "status": "Failure", "code": status, "reason": sent, "message": said, "details": details}
    return web.json_response(told, status=status, headers={"Retry-After": sent, "Warning": f'299 - "{said}"'})


class Quoting:
    """A scripted API server, and a broker on it; every answer of the server's is followed by a look at all that is shown."""

    def __init__(self, server: ApiServer, worlds: list[World]) -> None:
        self.server = server
        self.canaries = Canaries()
        self.token = self.canaries.new("the broker's token", length=64)
        worlds.append(world := World(server.configure({"token": self.token})))
        self.broker = world.broker
        self.shown: dict[str, str | bytes] = {}
        self.stream = Stream()
        key = base64.b64encode(self.canaries.new("a key", like=KEY).encode()).decode()
        self.good = secret("good", data={"ANTHROPIC_API_KEY": key})
        server.otherwise = {"list": page(self.good), "watch": self.stream}

    async def listed(self, handler: Handler) -> None:
        """Has it list again, with this for an answer."""
        self.server.otherwise |= {"list": handler, "watch": (stream := Stream())}
        self.stream, before = stream, len(self.server.asked)
        self.shown[f"reload {before}"] = await asyncio.to_thread(reload, self.broker)
        assert "list" in self.server.verbs()[before:]
        answered = await asyncio.to_thread(answered_by, self.broker)
        self.shown |= {f"{where} {before}": what for where, what in answered.items()}

    async def looked(self) -> None:
        """Has commands read it by themselves."""
        self.shown["doctor"] = str(self.shown.get("doctor")) + await asyncio.to_thread(said, self.broker, ["doctor"])

    async def streamed(self, line: bytes) -> None:
        """Has it follow anew, with this in the midst of the stream."""
        count = self.server.verbs().count("watch")
        old, self.stream = self.stream, Stream()
        self.server.otherwise["watch"] = self.stream
        old.write(line)
        await self.server.until(lambda asked: [one.verb for one in asked].count("watch") > count)


async def test_an_api_server_that_quotes_is_not_quoted(worlds: list[World], tmp_path: Path) -> None:
    """Whatever it answers to a list, and in the middle of a stream; and Secrets as none should be."""
    async with api_server(tmp_path) as server:
        quoting = Quoting(server, worlds)
        await asyncio.to_thread(quoting.broker.start, "-vv")
        for status, words in STATUSES.items():
            await quoting.listed(partial(quoted, status=status))
            assert words in quoting.broker.log()
        await quoting.looked()
        for garbage in _garbage(quoting.canaries):
            await quoting.listed(answer(garbage))
        await quoting.looked()
        await quoting.listed(page(quoting.good, *_misshapen(quoting.canaries)))
        assert "does not have the form of a Secret of the Kubernetes API" in quoting.broker.log()
        token = quoting.token
        for thing in ({"type": "ERROR", "object": {"code": 500, "reason": token, "message": token}}, {"type": token}, [token]):
            await quoting.streamed(json.dumps(thing).encode() + b"\n")
        await quoting.streamed(f"no line {token}\n".encode())
        shown = quoting.shown | await asyncio.to_thread(left_by, quoting.broker, "kubeconfig")
        assert quoting.canaries.leaks(shown) == {}


def test_what_the_broker_writes_into_a_cluster_holds_no_token(
    cluster: Api, namespace: str, worlds: list[World], tmp_path: Path
) -> None:
    """The marks of a refresh in annotations, and the lock: but for the data key that the tokens are kept in, nothing has them.
    The endpoint quotes what it refuses."""
    with TokenEndpoint(tmp_path / "ledger", life=3600.0) as endpoint:
        account = cluster.service_account(namespace, "broker", rules=[READS, LOCKS])
        kubeconfig = cluster.kubeconfig(tmp_path / "k", user=account.user, namespace=namespace)
        worlds.append(world := World(kubeconfig, token_url=endpoint.url))
        world.canaries.add("the broker's token", account.token)
        logins = {name: endpoint.login(name, life=-60.0) for name in ("good", "bad", "lost")}
        logins["bad"]["refresh"] = world.canaries.new("a refused token")
        for name, tokens in logins.items():
            store = {"version": 1, "profiles": {f"acme:{name}": {"type": "oauth", "provider": "acme", **tokens}}}
            cluster.secret(namespace, name, {"auth-profiles.json": json.dumps(store)}, labels=LABEL)
        broker = world.broker.start("-vv", service="liveness")
        broker.wait_healthy("profile/acme:good")
        broker.wait_output("models", "status", "--plain", until=lambda told: "\treauth_required\t" in told)
        broker.wait_healthy("profile/acme:lost")
        shown = world.shown()
        for kind, version in (("Secret", "v1"), ("Lease", "coordination.k8s.io/v1")):
            for thing in cluster.objects(kind, namespace=namespace, version=version):
                thing.pop("data", None)
                thing["metadata"].pop("managedFields", None)
                shown[f"{kind} {thing['metadata']['name']}"] = json.dumps(thing)
        for entry in endpoint.ledger():
            for one in filter(None, (entry.token, entry.access, entry.successor)):
                world.canaries.add("a token", one.rpartition("-")[2])
    assert "equabot.dev/reauth-required" in str(shown["Secret bad"])
    assert "equabot.dev/spent-refresh" in str(shown["Secret good"])
    assert any(where.startswith("Lease equabot-refresh-") for where in shown)
    assert world.leaks(shown) == {}
