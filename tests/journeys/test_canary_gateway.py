"""The gateway shows nothing: neither the key nor a lease's token, whatever an agent sends and a vendor answers."""

from collections.abc import Iterator
from typing import Any, Final

import pytest

from equabot_client import Lease
from tests.fakes.upstream import Answer, Upstream
from tests.gateway.running import MESSAGES, Gateway, Told
from tests.journeys.canaries import KEY, Canaries
from tests.journeys.showing import TALKATIVE, left_by, shown_by

OPENAI: Final = "sk-proj-{}"
QUOTED: Final = (500, 401, 403, 402, 429, 529)
CONFIG: Final[dict[str, Any]] = {
    "agents": {
        "main": {"deliveries": ["raw", "brokered"]},
        "other": {"providers": ["anthropic"], "deliveries": ["brokered"], "max_ttl": "2s"},
    },
    "leases": {"max_ttl": "1h"},
}


class World:
    """A gateway with two keys of Anthropic's and one of OpenAI's, and all that was ever said by it to anybody."""

    def __init__(self, vendor: Upstream, **config: Any) -> None:
        self.canaries = Canaries()
        self.vendor = vendor
        self.keys = {name: self.canaries.new(f"the key {name}", like=like) for name, like in _KEYS.items()}
        dotenv = "".join(f"{name}={key}\n" for name, key in self.keys.items())
        self.gateway = Gateway(vendor, dotenv=dotenv, **{**CONFIG, **config})
        self.gateway.environ |= TALKATIVE
        self.leases: list[Lease] = []
        self.told: dict[str, str | bytes] = {}

    def lease(self, provider: str = "anthropic", **wanted: Any) -> Lease:
        """A new one, whose token is a secret like any other."""
        lease = self.gateway.lease(provider, **wanted)
        assert lease.secret.reveal().startswith("eqb_")
        self.canaries.add("a lease's token", lease.secret.reveal().removeprefix("eqb_"))
        self.leases.append(lease)
        return lease

    def ask(self, what: str, token: str, path: str = MESSAGES, **sent: Any) -> Told:
        """As the gateway's; what it answers is searched."""
        told = self.gateway.ask(token, path, **sent)
        self.told[what] = f"{told.status} {dict(told.headers)} {told.body!r}"
        return told

    def leaks(self, shown: dict[str, str | bytes]) -> dict[str, set[str]]:
        return self.canaries.leaks(shown)


_KEYS: Final = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_API_KEY_SECOND": KEY, "OPENAI_API_KEY": OPENAI}


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.gateway.close()


@pytest.fixture
def vendor() -> Iterator[Upstream]:
    with Upstream() as serving:
        yield serving


@pytest.fixture
def world(worlds: list[World], vendor: Upstream) -> World:
    """Its Envoy is the broker's own child, so that all that it writes is in the broker's log."""
    worlds.append(World(vendor))
    worlds[-1].gateway.start("-vv")
    return worlds[-1]


def test_neither_key_nor_token_is_shown_by_anything(world: World) -> None:
    """Requests that are answered, refused, forged; the key itself sent by an agent; leases that ended; then every place where
    broker and Envoy leave something, and what both look like from outside. Across a kill -9, too: a digest is enough."""
    lease, revoked = world.lease(), world.lease()
    token = lease.secret.reveal()
    elsewhere, short = world.lease("openai").secret.reveal(), world.lease(agent="other").secret.reveal()
    sent = world.canaries.new("a key of the agent's", like=KEY)
    forged = world.canaries.new("a forged token", like="eqb_{}", length=43)
    stream = {"model": "x", "max_tokens": 1, "messages": [], "stream": True}
    assert world.ask("answered", token).status == 200
    assert world.ask("streamed", token, body=stream).status == 200
    with world.gateway.connect() as connected:
        connected.revoke(revoked)
    world.gateway.wait_for(lambda: world.ask("expired", short).status == 401)
    world.ask("revoked", revoked.secret.reveal())
    world.ask("the key itself", sent)
    world.ask("a forged token", forged)
    world.ask("half a token", token[:30])
    world.ask("no token", "")
    world.ask("another provider's", elsewhere)
    world.ask("two credentials", token, authorization=f"Bearer {sent}")
    world.ask("in the query", "", f"{MESSAGES}?key={sent}")
    world.ask("another path", token, f"/anthropic/v1/{sent}/organizations")
    world.ask("another route", token, f"/{sent}/v1/messages")
    world.ask("another origin", token, origin=f"https://{sent}.example")
    world.ask("another host", token, host=f"{sent}.example")
    world.ask("a strange kind", "", authorization=f"{sent} {token}")
    world.ask("no method", token, method=sent.replace("-", "")[:20].upper())
    passed = [what for what, told in world.told.items() if told.startswith("200 ")]  # type: ignore[arg-type]
    assert passed == ["answered", "streamed"]
    shown = world.told | shown_by(world.gateway)
    world.gateway.kill()
    world.gateway.start("-vv")
    assert world.ask("after a restart", token).status == 200
    world.gateway.stop()
    shown |= world.told | left_by(world.gateway)
    assert lease.id in str(shown["commands"])
    assert world.leaks(shown) == {}
    for where in ("audit", "log", "metrics"):
        assert [each.id for each in world.leases if each.id in str(shown[where])] == []
    assert lease.id.encode() in b"".join(what for where, what in shown.items() if "state.db" in where)  # type: ignore[misc]
    assert {received.secret() for received in world.vendor.received} <= set(world.keys.values())


def quoting(status: int, key: str) -> Answer:
    words = {"type": "error", "error": {"type": key, "message": f"not with {key}", "code": key}}
    headers = {"x-error": key, "retry-after": key, "www-authenticate": f'Bearer error="{key}"', "request-id": key}
    return Answer(status, headers, words)


@pytest.mark.parametrize("scrub", [False, True])
def test_a_vendor_that_quotes_the_key_is_not_quoted(worlds: list[World], vendor: Upstream, *, scrub: bool) -> None:
    """In the body and the headers of every kind of error: what broker and Envoy make of it (cooldowns, rejections, records)
    says nothing of it. With `scrub` the agent, too, does not see it."""
    worlds.append(world := World(vendor, gateway={"scrub": scrub}))
    world.gateway.start("-vv")
    paths = {"anthropic": MESSAGES, "openai": "/openai/v1/chat/completions"}
    tokens = {provider: world.lease(provider).secret.reveal() for provider in paths}
    answers = [(status, provider) for status in QUOTED for provider in paths]
    for status, provider in answers:
        vendor.verdicts = {key: quoting(status, key) for key in world.keys.values()}
        told = world.ask(f"{status} {provider}", tokens[provider], paths[provider])
        assert (told.status, told.reason) in ((status, ""), (503, "NO_USABLE_PROFILE"))
    assert {received.secret() for received in vendor.received} == set(world.keys.values())
    of_agents = [received for received in vendor.received if received.headers.get("user-agent") != "equabot-broker"]
    world.gateway.wait_for(lambda: len(world.gateway.events("used")) >= len(of_agents))
    shown = shown_by(world.gateway)
    assert "rejected" in str(shown["commands"])
    assert world.leaks(shown) == {}
    if scrub:
        assert world.leaks(world.told) == {}
