"""Configurations applied to a running engine, and the same ones to an engine that starts with them: nobody can tell which."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from equabot_broker.bootstrap.background_tasks import background_tasks
from equabot_broker.bootstrap.engine import ConfiguredEngine
from equabot_broker.config.changes import changes, needs_restart
from equabot_broker.config.gateway import gateway_of
from equabot_broker.config.load import load
from equabot_broker.config.model import Config
from equabot_broker.domain.errors import BrokerError
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.engine.wiring import Engine
from equabot_broker.envoy.bootstrap_config import routes_config
from equabot_broker.schema.faults import ConfigurationFaults
from equabot_broker.telemetry.events import Events
from tests.fakes.state import MemoryStateStore

AGENTS = ("main", "worker", "night-shift")
PROVIDERS = ("anthropic", "openai", "zai-of-ours", "lab")
KEYS = {
    "ANTHROPIC_API_KEY": "sk-ant-api03-" + "k3y" * 30,
    "OPENAI_API_KEY": "sk-proj-" + "k3y" * 16,
    "ZAI_OF_OURS_API_KEY": "0123456789abcdef-zai",
    "LAB_API_KEY": "0123456789abcdef-lab",
}


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), unique=True, max_size=len(values))


policies = st.fixed_dictionaries(
    {},
    optional={
        "providers": some("*", "anthropic", "openai"),
        "deliveries": st.lists(st.sampled_from(["raw", "brokered"]), unique=True, min_size=1),
        "max_ttl": st.sampled_from(["1m", "10m", "1h"]),
        "max_leases": st.integers(1, 9),
        "requests": st.just(["GET /**"]),
    },
)
own_providers = {
    name: st.fixed_dictionaries(
        {
            "base_url": st.sampled_from(["http://127.0.0.1:9/v1", "https://api.example.com/v2"]),
            "env": st.just({f"{name.upper().replace('-', '_')}_API_KEY": "api_key"}),
        },
        optional={"requests": st.just(["POST /v1/chat"]), "key_prefixes": st.just(["0123"])},
    )
    for name in ("zai-of-ours", "lab")
}
documents = st.fixed_dictionaries(
    {},
    optional={
        "agents": st.dictionaries(st.sampled_from(AGENTS), policies, min_size=1),
        "providers": st.fixed_dictionaries({}, optional=own_providers | {"openai": st.just({"base_url": "https://eu.example.com/v1"})}),
        "required": some("anthropic", "openai"),
        "sources": st.lists(st.sampled_from(["dotenv", "profile_store", "other"]), unique=True, min_size=1),
        "profiles": st.just({"anthropic:mine": {"from": {"dotenv": "ANTHROPIC_API_KEY"}, "expires_at": "2099-01-01T00:00:00Z"}}),  # noqa: E501
        "auth": st.sampled_from([{"order": {"anthropic": ["anthropic:dotenv"]}}, {"cooldowns": {"billing_backoff": "2h"}}]),
        "leases": st.sampled_from([{"default_ttl": "5m"}, {"max_ttl": "30m"}]),
        "expiry": st.just({"warn_within": "400d"}),
        "models": st.just({"default": "openai/gpt-5"}),
    },
)  # fmt: skip


def configured(home: Path, document: dict[str, Any]) -> Config | None:
    """The configuration, where it is sound."""
    sources = {
        "dotenv": {"dotenv": {"path": str(home / ".env")}},
        "profile_store": {"profile_store": {}},
        "other": {"mounted": {"path": str(home / "mounted")}},
    }
    written = dict(document)
    if "sources" in written:
        written["sources"] = [sources[name] for name in written["sources"]]
    (home / "equabot.yaml").write_text(yaml.safe_dump(written))
    environ = {"EQUABOT_HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run"), "HOME": str(home)}
    try:
        return load(environ=environ, home=home)
    except ConfigurationFaults:
        return None


def furnished(home: Path) -> None:
    (home / ".env").write_text("".join(f"{name}={key}\n" for name, key in KEYS.items()))
    (home / "mounted").mkdir()
    (home / "mounted" / "OPENAI_API_KEY").write_text("sk-proj-" + "m0unt" * 10)
    store = home / "agents" / "worker" / "agent" / "auth-profiles.json"
    store.parent.mkdir(parents=True)
    entry = {"type": "api_key", "provider": "openai", "key": "sk-proj-" + "st0re" * 10}
    store.write_text(json.dumps({"version": 1, "profiles": {"openai:own": entry}}))
    store.chmod(0o600)


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[ConfiguredEngine]:
    configured = ConfiguredEngine(config, clock=SystemClock(), store=MemoryStateStore(), events=Events())
    async with background_tasks(configured.engine.ingest.run()):
        async with asyncio.timeout(60):
            await configured.engine.ingest.wait_attempted()
        yield configured
    await configured.logins.close()


def answers(engine: Engine, config: Config) -> dict[str, Any]:
    """All that can be asked of it, as text."""
    found: dict[str, Any] = {
        "health": {name: engine.readiness.status(name) for name in engine.readiness.statuses()},
        "unmet": engine.readiness.unmet(),
        "sources": [(state.name, state.attempted, sorted(state.units)) for state in engine.ingest.states],
        "agents": engine.suspension_control.states(),
        "routes": routes_config(gateway_of(config)),
    }
    for agent in AGENTS:
        for provider in ("", *PROVIDERS):
            try:
                rows = engine.profile_statuses.of(agent, provider, operator=True)
                found[f"profiles {agent} {provider}"] = [(row.id, row.state, row.reason, row.base_url) for row in rows]
            except BrokerError as refused:
                found[f"profiles {agent} {provider}"] = str(refused)
        for provider in PROVIDERS:
            for delivery in ("", "raw", "brokered"):
                found[f"lease {agent} {provider} {delivery}"] = asked(engine, agent, provider, delivery)
    return found


def asked(engine: Engine, agent: str, provider: str, delivery: str) -> object:
    try:
        granted = engine.lease_service.acquire(agent, LeaseRequest(provider=provider, delivery=delivery))
    except BrokerError as refused:
        return refused.reason, refused.message
    lease = granted.lease
    engine.lease_service.revoke(agent, lease.id)
    lengths = [round(until - lease.issued_at) for until in (lease.expires_at, lease.max_expires_at)]
    return lease.profile, str(lease.delivery), lengths, granted.provider.base_url


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=documents, after=documents)
def test_applied_and_started_with_answer_the_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """C15: policies, profiles, leases, health, sources and routes, for any two configurations."""
    with TemporaryDirectory() as folder:
        home = Path(folder)
        furnished(home)
        one, other = configured(home, before), configured(home, after)
        assume(one is not None and other is not None)
        assert one is not None
        assert other is not None
        assert needs_restart(one, other) == []
        assert bool(changes(one, other)) is (bool(changes(other, one)))
        asyncio.run(_compare(one, other))


async def _compare(one: Config, other: Config) -> None:
    async with running(one) as reloaded, running(other) as started:
        reloaded.apply(await reloaded.prepare(other))
        assert answers(reloaded.engine, other) == answers(started.engine, other)


async def test_a_source_that_does_not_answer_keeps_what_it_had(tmp_path: Path) -> None:
    """C15: the new configuration is in effect, and the profiles of providers that are known still serve."""
    furnished(tmp_path)
    one = configured(tmp_path, {"sources": ["other"]})
    other = configured(tmp_path, {"sources": ["other"], "providers": {"lab": {"base_url": "http://127.0.0.1:9"}}})
    assert one is not None
    assert other is not None
    async with running(one) as broker:
        (tmp_path / "mounted").rename(tmp_path / "elsewhere")
        (tmp_path / "mounted").write_text("no directory")
        broker.apply(await broker.prepare(other))
        engine = broker.engine
        assert engine.resolver.resolve_names("lab", "") == ("lab", "")
        assert [row.id for row in engine.profile_statuses.of("main", "openai")] == ["openai:mounted"]


async def test_a_configuration_that_is_forsaken_changes_nothing(tmp_path: Path) -> None:
    """C15: not even what is followed."""
    furnished(tmp_path)
    one, other = configured(tmp_path, {"sources": ["dotenv"]}), configured(tmp_path, {"sources": ["other"]})
    assert one is not None
    assert other is not None
    async with running(one) as broker:
        engine = broker.engine
        before = answers(engine, one)
        broker.discard(await broker.prepare(other))
        assert answers(engine, one) == before
        assert await engine.ingest.reread()
