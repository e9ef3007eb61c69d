"""One question, one answer: health, `ListProfiles`, `--check`, diagnosis and a grant agree, whatever the world."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from equabot_broker.cli.status_report import StatusReport
from equabot_broker.config.load import load
from equabot_broker.domain.cooldowns import HOUR, Usage
from equabot_broker.domain.errors import BrokerError
from equabot_broker.domain.material import SourceUnavailable, Unit, UnitsListed
from equabot_broker.domain.policies import AgentPolicy, Delivery
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.suspension import Suspension
from equabot_broker.engine.leases.messages import LeaseRequest
from tests.fakes.engine import Engine, profile
from tests.fakes.source import FakeSource

ANTHROPIC, ACME = "anthropic", "acme"
PROVIDERS = {
    ANTHROPIC: Provider(id=ANTHROPIC, base_url="https://a.example", requests=("POST /**",)),
    ACME: Provider(id=ACME, base_url="https://b.example"),  # not brokered: it has no list
}
NAMES = [f"{provider}:{name}" for provider in PROVIDERS for name in ("a", "b")]
AGENTS = ("main", "ann")
KINDS = ("fine", "malformed", "expired", "ends soon", "cooling", "disabled", "rejected", "gone")


@dataclass(frozen=True)
class World:
    """What an answer depends on. `broken`: the second source cannot be read."""

    kinds: Mapping[str, str]
    owners: Mapping[str, str]
    order: tuple[str, ...]
    policies: Mapping[str, AgentPolicy]
    suspended: frozenset[str]
    gateway: bool
    broken: bool


def policies() -> st.SearchStrategy[AgentPolicy]:
    return st.builds(
        AgentPolicy,
        providers=st.sampled_from([frozenset({"*"}), frozenset({ANTHROPIC}), frozenset({ACME})]),
        profiles=st.sampled_from([frozenset({"*"}), frozenset({"anthropic:a"}), frozenset({"anthropic:absent"})]),
        deliveries=st.sampled_from([(Delivery.RAW,), (Delivery.BROKERED,), (Delivery.RAW, Delivery.BROKERED)]),
    )


WORLDS = st.builds(
    World,
    kinds=st.fixed_dictionaries({name: st.sampled_from(KINDS) for name in NAMES}),
    owners=st.fixed_dictionaries({name: st.sampled_from(["", "ann"]) for name in NAMES}),
    order=st.sampled_from([(), ("anthropic:a",), ("anthropic:b", "anthropic:absent"), ("anthropic:absent",)]),
    policies=st.fixed_dictionaries({agent: policies() for agent in AGENTS}),
    suspended=st.frozensets(st.sampled_from(AGENTS)),
    gateway=st.booleans(),
    broken=st.booleans(),
)


def build(world: World) -> Engine:
    engine = Engine(
        agents=world.policies,
        providers=PROVIDERS,
        order={ANTHROPIC: world.order} if world.order else {},
        required=tuple(PROVIDERS),
        deliveries=frozenset(Delivery) if world.gateway else frozenset({Delivery.RAW}),
        sources=(FakeSource("one"), FakeSource("two")),
    )
    held = [name for name in NAMES if world.kinds[name] != "gone"]
    found = tuple(made(name, world.kinds[name], world.owners[name], engine.clock.now()) for name in held)
    engine.ingest._take(0, UnitsListed((Unit("unit", found),)))
    engine.ingest._take(1, SourceUnavailable("no route") if world.broken else UnitsListed(()))
    for name in held:
        engine.registry.replace_usage((world.owners[name], name), usage(engine, name, world))
    for agent in world.suspended:
        engine.suspensions.put(agent, Suspension(since=0.0))
    return engine


def made(name: str, kind: str, owner: str, now: float) -> Profile:
    ends = {"expired": now - HOUR, "ends soon": now + HOUR}.get(kind)
    return profile(name, None if kind == "malformed" else "secret", mode=Mode.API_KEY, expires_at=ends, agent=owner)


def usage(engine: Engine, name: str, world: World) -> Usage:
    now, kind = engine.clock.now(), world.kinds[name]
    found = engine.registry.material.held[world.owners[name], name]
    if kind == "cooling":
        return Usage(cooldown_until=now + HOUR, last_failure=now, version=found.version)
    if kind == "disabled":
        return Usage(disabled_until=now + HOUR, disabled_reason="billing", last_failure=now, version=found.version)
    if kind == "rejected":
        return Usage(rejected="refused", rejected_version=found.version, rejected_until=now + HOUR, version=found.version)
    return Usage()


def granted(engine: Engine, agent: str, **asked: str) -> bool:
    try:
        engine.lease_service.acquire(agent, LeaseRequest(**asked))  # type: ignore[arg-type]
    except BrokerError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(world=WORLDS)
def test_every_answer_is_what_a_grant_says(world: World) -> None:
    """P4, P8, P9, P12, P17: readiness, providers, profiles, lists, `--check` and diagnosis say what acquiring says."""
    asyncio.run(agree(world))


async def agree(world: World) -> None:
    engine = build(world)
    got = {(agent, provider): granted(engine, agent, provider=provider) for agent in AGENTS for provider in PROVIDERS}
    served = {provider: any(got[agent, provider] for agent in AGENTS) for provider in PROVIDERS}
    for provider in PROVIDERS:
        assert engine.readiness.status(f"provider/{provider}") is served[provider]
    assert engine.readiness.status("readiness") is engine.readiness.status("") is all(served.values())
    assert engine.readiness.unmet().keys() == {provider for provider, serves in served.items() if not serves}
    for name in NAMES:
        by_name = any(granted(engine, agent, profile=name) for agent in AGENTS)
        assert engine.readiness.status(f"profile/{name}") is (None if world.kinds[name] == "gone" else by_name)
    for agent in AGENTS:
        rows = engine.availability.statuses(agent)
        for provider in PROVIDERS:
            assert any(row.usable for row in rows if row.provider == provider) is got[agent, provider]
            assert any(row.next for row in rows if row.provider == provider) is got[agent, provider]
            assert bool(engine.availability.obstacle(agent, provider)) is not got[agent, provider]
        check(engine, agent, got)


def check(engine: Engine, agent: str, got: Mapping[tuple[str, str], bool]) -> None:
    """`--check`, with every provider in use."""
    with TemporaryDirectory() as home:
        config = load(environ={"EQUABOT_HOME": home}, home=Path(home))
    object.__setattr__(config, "required", (ANTHROPIC,))
    rows = engine.availability.statuses(agent)
    report = StatusReport(config=config, agent=agent, profiles=rows, troubles=(), broker="", now=engine.clock.now())
    if not got[agent, ANTHROPIC]:
        assert report.verdict() == 1
        return
    states = {row.state for row in rows if row.provider == ANTHROPIC} - {"invalid", "missing"}
    assert report.verdict() == (1 if states & {"expired", "rejected"} else 2 if "expiring" in states else 0)
