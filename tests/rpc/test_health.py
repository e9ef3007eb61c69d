"""`grpc.health.v1.Health` over a real socket."""

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2 as pb

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import UnitsListed
from equabot_broker.providers import PROVIDERS
from tests.fakes.engine import Engine, profile
from tests.rpc.conftest import Serve
from tests.rpc.serving import eventually, in_time, refused

NOW = 1_800_000_000
KEY = ("", "anthropic:a")


def holding(*ids: str, **options: Any) -> Engine:
    engine = Engine(**options)
    engine.hold(*(profile(profile_id) for profile_id in ids))
    return engine


async def check(health: Any, service: str) -> str:
    answer = await health.Check(pb.HealthCheckRequest(service=service))
    return str(pb.HealthCheckResponse.ServingStatus.Name(answer.status))


async def follow(watch: Any) -> str:
    """The next status that is sent."""
    async with asyncio.timeout(60):
        answer = await watch.read()
    return str(pb.HealthCheckResponse.ServingStatus.Name(answer.status))


async def silent(watch: Any) -> None:
    """Nothing is sent for a while."""
    reading = asyncio.ensure_future(watch.read())
    done, _ = await asyncio.wait({reading}, timeout=0.1)
    assert not done
    watch.cancel()
    await asyncio.wait({reading})


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("", "SERVING"),
        ("readiness", "SERVING"),
        ("liveness", "SERVING"),
        ("provider/anthropic", "SERVING"),
        ("provider/Anthropic", "SERVING"),
        ("provider/mistral", "NOT_SERVING"),
        ("profile/anthropic:a", "SERVING"),
        ("profile/openai:late", "NOT_SERVING"),
    ],
)
async def test_check_answers_by_name(serve: Serve, service: str, status: str) -> None:
    """The broker, each provider, each profile; a known provider without a usable profile is NOT_SERVING."""
    engine = Engine(required=("anthropic",))
    engine.hold(profile("anthropic:a"), profile("openai:late", expires_at=NOW - 1.0))
    async with serve(engine) as served:
        await engine.settle()
        assert await check(await served.health(), service) == status


@pytest.mark.parametrize("service", ["nonsense", "provider/", "provider/athropic", "profile/anthropic:nope", "Readiness"])
async def test_an_unknown_name_is_not_found(serve: Serve, service: str) -> None:
    """On Check; on Watch it is a status like others, for it may become known."""
    async with serve(holding("anthropic:a")) as served:
        health = await served.health()
        failed = await refused(health.Check(pb.HealthCheckRequest(service=service)))
        assert (failed.code, failed.details, failed.reason) == ("NOT_FOUND", "unknown service", "")
        assert await follow(health.Watch(pb.HealthCheckRequest(service=service))) == "SERVICE_UNKNOWN"


async def test_before_the_sources_are_read_nothing_is_ready(serve: Serve) -> None:
    """But the loop turns."""
    engine = Engine()
    async with serve(engine) as served:
        health = await served.health()
        assert [await check(health, name) for name in ("", "readiness", "liveness")] == [
            "NOT_SERVING", "NOT_SERVING", "SERVING",
        ]  # fmt: skip
        watch = health.Watch(pb.HealthCheckRequest(service=""))
        assert await follow(watch) == "NOT_SERVING"
        engine.sources[0].push(UnitsListed(()))
        assert await follow(watch) == "SERVING"


async def test_watch_sends_every_change_and_nothing_else(serve: Serve) -> None:
    """Expiry, absence, return, rejection, billing; a cooldown alone is not sent, nor is new material that serves as well."""
    engine = Engine()
    engine.hold(profile("anthropic:a", "one", expires_at=NOW + 60.0))
    async with serve(engine) as served:
        await engine.settle()
        health = await served.health()
        watches = [health.Watch(pb.HealthCheckRequest(service=s)) for s in ("provider/anthropic", "profile/anthropic:a")]
        for watch in watches:
            assert await follow(watch) == "SERVING"
        for watch in watches:
            assert await in_time(engine, follow(watch)) == "NOT_SERVING"
        engine.hold(profile("anthropic:a", "two"))
        for watch in watches:
            assert await follow(watch) == "SERVING"
        engine.registry.replace_usage(KEY, Usage(cooldown_until=engine.clock.now() + 60.0))
        engine.registry.replace_usage(KEY, Usage(disabled_until=engine.clock.now() + 60.0, disabled_reason="billing"))
        for watch in watches:
            assert await follow(watch) == "NOT_SERVING"
        engine.registry.replace_usage(KEY, Usage())
        for watch in watches:
            assert await follow(watch) == "SERVING"
        engine.sources[0].push(UnitsListed(()))
        assert [await follow(watch) for watch in watches] == ["NOT_SERVING", "SERVICE_UNKNOWN"]
        engine.hold(profile("anthropic:a", "three"))
        for watch in watches:
            assert await follow(watch) == "SERVING"
        engine.hold(profile("anthropic:a", "four"))
        engine.registry.replace_usage(KEY, Usage(cooldown_until=engine.clock.now() + 60.0))
        for watch in watches:
            await silent(watch)


async def test_a_watcher_that_goes_is_forgotten(serve: Serve) -> None:
    """Nothing keeps on waiting for it."""
    engine = holding("anthropic:a")
    async with serve(engine) as served:
        watch = (await served.health()).Watch(pb.HealthCheckRequest(service=""))
        await follow(watch)
        assert len(engine.readiness._watchers) == 1
        watch.cancel()
        await eventually(lambda: not engine.readiness._watchers, within=1)


async def test_a_draining_broker_is_alive_and_serves_nothing(serve: Serve) -> None:
    """Watchers get it before the server stops."""
    engine = holding("anthropic:a")
    async with serve(engine) as served:
        await engine.settle()
        health = await served.health()
        watch = health.Watch(pb.HealthCheckRequest(service="provider/anthropic"))
        assert await follow(watch) == "SERVING"
        engine.readiness.drain()
        assert await follow(watch) == "NOT_SERVING"
        told = {name: await check(health, name) for name in ("", "readiness", "liveness", "profile/anthropic:a")}
        assert told == {
            "": "NOT_SERVING", "readiness": "NOT_SERVING", "liveness": "SERVING", "profile/anthropic:a": "NOT_SERVING",
        }  # fmt: skip


async def test_list_has_everything_that_check_knows(serve: Serve) -> None:
    """Every name with its status, providers without a profile among them."""
    engine = holding("anthropic:a")
    async with serve(engine) as served:
        await engine.settle()
        health = await served.health()
        listed = (await health.List(pb.HealthListRequest())).statuses
        assert set(listed) == {"", "readiness", "liveness", "profile/anthropic:a", *(f"provider/{p}" for p in PROVIDERS)}
        for name, answer in listed.items():
            assert await check(health, name) == pb.HealthCheckResponse.ServingStatus.Name(answer.status)


async def test_a_list_too_long_is_refused_as_the_protocol_says(serve: Serve) -> None:
    """RESOURCE_EXHAUSTED, at once; single names are still answered."""
    engine = holding(*(f"anthropic:{number}" for number in range(10_000)))
    async with serve(engine) as served:
        await engine.settle()
        health = await served.health()
        async with asyncio.timeout(60):
            failed = await refused(health.List(pb.HealthListRequest()))
        assert (failed.code, failed.reason) == ("RESOURCE_EXHAUSTED", "")
        assert await check(health, "profile/anthropic:9999") == "SERVING"
