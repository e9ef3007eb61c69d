"""Secrets by push, as an Envoy with `credential_injector` subscribes to them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.service.discovery.v3 import discovery_pb2 as pb
from envoy.service.secret.v3.sds_pb2_grpc import SecretDiscoveryServiceStub
from google.rpc.status_pb2 import Status

from equabot_broker.bootstrap.subscriptions import subscribe
from equabot_broker.domain.policies import AgentPolicy
from equabot_broker.domain.provider import Mode
from equabot_broker.envoy.secret_discovery import SecretServicer
from tests.fakes.engine import ANYTHING, Engine, profile
from tests.rpc.serving import eventually, said

WORK = profile("anthropic:work", "sk-of-work", source="fake")
HOME = profile("anthropic:home", "sk-of-home", mode=Mode.TOKEN)


@pytest.fixture
def engine() -> Engine:
    return Engine(
        agents={"main": ANYTHING, "narrow": AgentPolicy(providers=frozenset({"openai"}))},
        order={"anthropic": ("anthropic:work", "anthropic:home")},
    )


@pytest.fixture
async def channel(engine: Engine, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    """To the control socket."""
    servicer = SecretServicer(
        resolver=engine.resolver,
        registry=engine.registry,
        ingest=engine.ingest,
        suspensions=engine.suspensions,
        events=engine.events,
    )
    subscribe(engine, secrets=servicer)
    server = grpc.aio.server(handlers=[servicer.service()])
    server.add_insecure_port(f"unix:{tmp_path / 'control.sock'}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'control.sock'}") as channel:
        yield channel
    await server.stop(None)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return SecretDiscoveryServiceStub(channel)


def secrets(resources: Any) -> dict[str, str]:
    """What they hold, by name."""
    found = {}
    for resource in resources:
        secret = Secret()
        assert resource.Unpack(secret)
        found[secret.name] = secret.generic_secret.secret.inline_string
    return found


class World:
    """A subscription to the state of the world."""

    def __init__(self, stub: Any) -> None:
        self.call = stub.StreamSecrets()
        self.answers = 0

    async def ask(self, *names: str, nonce: str = "", **more: Any) -> None:
        await self.call.write(pb.DiscoveryRequest(resource_names=names, response_nonce=nonce, **more))

    async def told(self) -> dict[str, str]:
        async with asyncio.timeout(60):
            answer = await self.call.read()
        self.answers += 1
        assert answer.nonce == str(self.answers)  # nothing was sent in between
        await self.ask(*(secret for secret in secrets(answer.resources)), nonce=answer.nonce)  # as Envoy confirms
        return secrets(answer.resources)


async def test_a_secret_is_what_stands_in_the_header(engine: Engine, stub: Any) -> None:
    """Prefix and all: a key bare, a token behind `Bearer`; with `/secret`, alone."""
    engine.put(WORK, HOME)
    world = World(stub)
    names = ("main/anthropic", "profile/anthropic:home", "profile/anthropic:home/secret")
    await world.ask(*names)
    assert await world.told() == dict(zip(names, ("sk-of-work", "Bearer sk-of-home", "sk-of-home"), strict=True))


async def test_a_rotation_is_pushed(engine: Engine, stub: Any) -> None:
    """To those who are subscribed, without their asking."""
    engine.put(WORK)
    world = World(stub)
    await world.ask("main/anthropic")
    assert await world.told() == {"main/anthropic": "sk-of-work"}
    engine.put(profile("anthropic:work", "sk-rotated"))
    assert await world.told() == {"main/anthropic": "sk-rotated"}


async def test_the_next_profile_takes_over(engine: Engine, stub: Any) -> None:
    """An agent's resource is whatever would serve it now, in the form of that one."""
    engine.put(WORK, HOME)
    world = World(stub)
    await world.ask("main/anthropic")
    assert await world.told() == {"main/anthropic": "sk-of-work"}
    engine.put(HOME)
    assert await world.told() == {"main/anthropic": "Bearer sk-of-home"}


async def test_what_is_gone_is_pushed_as_empty(engine: Engine, stub: Any) -> None:
    """Envoy keeps a secret until it gets another; a restored one is sent too."""
    engine.put(WORK)
    world = World(stub)
    await world.ask("profile/anthropic:work")
    assert await world.told() == {"profile/anthropic:work": "sk-of-work"}
    engine.put()
    assert await world.told() == {"profile/anthropic:work": ""}
    engine.put(profile("anthropic:work", "sk-back"))
    assert await world.told() == {"profile/anthropic:work": "sk-back"}


async def test_a_suspended_agent_has_no_secret(engine: Engine, stub: Any) -> None:
    """S11: an Envoy that injects for it gets an empty secret until the agent is resumed; a profile's own secret belongs to no
    agent."""
    engine.put(WORK)
    world = World(stub)
    await world.ask("main/anthropic", "profile/anthropic:work")
    assert await world.told() == {"main/anthropic": "sk-of-work", "profile/anthropic:work": "sk-of-work"}
    await engine.suspension_control.suspend("main")
    assert await world.told() == {"main/anthropic": "", "profile/anthropic:work": "sk-of-work"}
    await engine.suspension_control.resume("main")
    assert (await world.told())["main/anthropic"] == "sk-of-work"


async def test_a_secret_that_is_not_there_yet_is_pushed_when_it_comes(engine: Engine, stub: Any) -> None:
    """Until then nothing is sent: Envoy waits as long as it is configured to."""
    world = World(stub)
    await world.ask("main/anthropic")
    engine.put(WORK)
    assert await world.told() == {"main/anthropic": "sk-of-work"}


async def test_an_unrelated_change_is_not_sent(engine: Engine, stub: Any) -> None:
    """A secret is not sent again when Envoy acknowledges it."""
    engine.put(WORK)
    world = World(stub)
    await world.ask("main/anthropic")
    await world.told()
    other = World(stub)
    await other.ask("profile/openai:work")
    engine.put(WORK, profile("openai:work", "sk-of-openai"))
    assert await other.told() == {"profile/openai:work": "Bearer sk-of-openai"}
    engine.put(HOME, profile("openai:work", "sk-of-openai"))
    assert await world.told() == {"main/anthropic": "Bearer sk-of-home"}


async def test_an_order_that_an_operator_sets_is_followed(engine: Engine, stub: Any) -> None:
    """It changes who serves, and no profile."""
    engine.put(WORK, HOME)
    world = World(stub)
    await world.ask("main/anthropic")
    assert await world.told() == {"main/anthropic": "sk-of-work"}
    await engine.order_overrides.set("main", "anthropic", ["anthropic:home"])
    assert await world.told() == {"main/anthropic": "Bearer sk-of-home"}


@pytest.mark.parametrize("name", ["narrow/anthropic", "nobody/anthropic", "main/nothing", "profile/", "", "main"])
async def test_a_denied_or_unknown_resource_does_not_exist(engine: Engine, stub: Any, name: str) -> None:
    """As if it did not exist yet; what else was asked for comes all the same."""
    engine.put(WORK)
    world = World(stub)
    await world.ask(name, "main/anthropic")
    assert await world.told() == {"main/anthropic": "sk-of-work"}


async def test_a_reconnected_envoy_gets_the_removals(engine: Engine, stub: Any) -> None:
    """It has kept what another broker sent."""
    engine.put(HOME)
    world = World(stub)
    await world.ask("profile/anthropic:work", "profile/anthropic:home", version_info="7")
    assert await world.told() == {"profile/anthropic:work": "", "profile/anthropic:home": "Bearer sk-of-home"}


async def test_nothing_is_gone_before_every_source_has_been_read(engine: Engine, stub: Any) -> None:
    """A broker that has just been started knows nothing yet."""
    world = World(stub)
    await world.ask("profile/anthropic:work", version_info="7")
    assert not engine.ingest.attempted
    engine.put(WORK)
    assert await world.told() == {"profile/anthropic:work": "sk-of-work"}


async def test_increments_tell_what_is_new(engine: Engine, stub: Any) -> None:
    """And to one that comes back with what it has, only what differs."""
    engine.put(WORK, HOME)
    names = ["profile/anthropic:work", "profile/anthropic:home"]
    call = stub.DeltaSecrets()
    await call.write(pb.DeltaDiscoveryRequest(resource_names_subscribe=names))
    first = await call.read()
    assert secrets(one.resource for one in first.resources).keys() == set(names)
    has = {one.name: one.version for one in first.resources}
    engine.put(WORK, profile("anthropic:home", "sk-rotated", mode=Mode.TOKEN))
    assert secrets(one.resource for one in (await call.read()).resources) == {names[1]: "Bearer sk-rotated"}
    call.cancel()
    again = stub.DeltaSecrets()
    await again.write(pb.DeltaDiscoveryRequest(resource_names_subscribe=names, initial_resource_versions=has))
    assert secrets(one.resource for one in (await again.read()).resources) == {names[1]: "Bearer sk-rotated"}
    again.cancel()


async def test_one_may_ask_once(engine: Engine, stub: Any) -> None:
    """Without a stream."""
    engine.put(WORK)
    answer = await stub.FetchSecrets(pb.DiscoveryRequest(resource_names=["main/anthropic"]))
    assert secrets(answer.resources) == {"main/anthropic": "sk-of-work"}


async def test_a_refusal_is_logged_without_its_words(engine: Engine, stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Envoy may quote what it refuses."""
    engine.put(WORK)
    world = World(stub)
    await world.ask("main/anthropic")
    await world.told()
    await world.ask("main/anthropic", nonce="1", error_detail=Status(code=3, message="bad secret sk-of-work"))
    await eventually(lambda: said(caplog) == ["an Envoy refuses a secret of main/anthropic"])
    engine.put(profile("anthropic:work", "sk-rotated"))
    assert await world.told() == {"main/anthropic": "sk-rotated"}
    assert said(caplog) == ["an Envoy refuses a secret of main/anthropic"]


async def test_what_is_not_a_message_ends_the_subscription(channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture) -> None:
    """By status, and without an incident."""
    call: Any = channel.stream_stream("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets")()
    await call.write(b"\xff nonsense")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said(caplog) == []
