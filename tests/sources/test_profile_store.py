"""The agents' stores, on a real file system with real notifications, written by ourselves and by others."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import Unit, UnitChanged, UnitsListed
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, with_entry
from equabot_broker.sources.profile_store import ProfileStores
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.storage.sealing import Seal
from tests.fakes.following import RULES, following, live_watch, secrets


@pytest.fixture
def stores(tmp_path: Path) -> AgentStores:
    return AgentStores(tmp_path, clock=SystemClock())


def source(stores: AgentStores, *agents: str) -> ProfileStores:
    return ProfileStores({agent: stores.of(agent) for agent in ("main", *agents)}, rules=RULES, watch=live_watch())


def key(name: str, secret: str) -> Callable[[AuthDocument], AuthDocument]:
    return lambda document: with_entry(document, name, {"type": "api_key", "key": secret})


def written(*entries: tuple[str, str], **rest: Any) -> str:
    profiles = {name: {"type": "api_key", "key": secret} for name, secret in entries}
    return json.dumps({"version": 1, "profiles": profiles, **rest})


async def test_every_agent_is_a_unit(stores: AgentStores) -> None:
    """Those that have a store; another agent's directory is nobody's business."""
    for agent in ("main", "coder", "stranger"):
        await stores.edit(agent, key("openai:x", f"of-{agent}"))
    async with following(source(stores, "coder", "empty")) as events:
        listed = await events.event()
        assert isinstance(listed, UnitsListed)
        assert [(u.name, u.owner, [p.agent for p in u.profiles], secrets(u)) for u in listed.units] == [
            ("main", "main", [""], {"openai:x": "of-main"}),
            ("coder", "coder", ["coder"], {"openai:x": "of-coder"}),
        ]


async def test_whoever_writes_it_is_followed(stores: AgentStores) -> None:
    """Created later, edited by us, written in place by OpenClaw, replaced, deleted: one event each about its agent."""
    path = stores.of("main").path
    async with following(source(stores, "coder")) as events:
        assert await events.next() == {}
        await stores.edit("main", key("openai:x", "one"))
        assert await events.next() == ("main", {"openai:x": "one"})
        path.write_text(written(("openai:x", "two"), ("groq:y", "gsk_y")))
        assert await events.next() == ("main", {"openai:x": "two", "groq:y": "gsk_y"})
        await stores.edit("coder", key("openai:x", "own"))
        assert await events.next() == ("coder", {"openai:x": "own"})
        (path.parent / "new").write_text(written(("openai:x", "three")))
        (path.parent / "new").rename(path)
        assert await events.next() == ("main", {"openai:x": "three"})
        path.unlink()
        assert await events.next() == "main"


async def test_what_is_remembered_there_is_told_as_it_changes(stores: AgentStores) -> None:
    """Usage and orders, though no profile changed; the lock files beside are nothing."""
    path = stores.of("main").path
    await stores.edit("main", key("openai:x", "k"))
    async with following(source(stores)) as events:
        await events.event()
        text = written(("openai:x", "k"), usageStats={"openai:x": {"lastUsed": 5000}}, order={"openai": ["openai:x"]})
        path.write_text(text)
        changed = await events.event()
        assert isinstance(changed, UnitChanged)
        assert changed.unit.usage == {"openai:x": Usage(last_used=5.0)}
        assert changed.unit.orders == {"openai": ("openai:x",)}
        async with stores.locked("main"):
            await asyncio.sleep(0.02)
        assert events.silent


async def test_a_broken_store_fails_its_agent_alone(stores: AgentStores) -> None:
    """What it held before is served on; the fault names file and place."""
    await stores.edit("main", key("openai:x", "k"))
    await stores.edit("coder", key("openai:x", "own"))
    path = stores.of("coder").path
    async with following(source(stores, "coder")) as events:
        await events.event()
        path.write_text(written(("openai:x", "new"))[:-9])
        broken = await events.event()
        assert isinstance(broken, UnitsListed)
        assert [unit.name for unit in broken.units] == ["main"]
        assert broken.failed["coder"].startswith(f"{path} cannot be used: it breaks off in the middle (at byte ")
        path.write_text(written(("openai:x", "mended")))
        assert await events.next() == ("coder", {"openai:x": "mended"})


async def test_a_store_open_to_others_is_a_fault_of_its_unit(stores: AgentStores) -> None:
    """It is served all the same, and closing it takes the fault away."""
    await stores.edit("main", key("openai:x", "k"))
    path = stores.of("main").path
    path.chmod(0o644)
    async with following(source(stores)) as events:
        listed = await events.event()
        assert isinstance(listed, UnitsListed)
        assert ["other users than its owner can access" in fault.message for fault in listed.units[0].faults] == [True]
        await stores.edit("main", lambda document: document)
        changed = await events.event()
        assert isinstance(changed, UnitChanged)
        assert (changed.unit.faults, len(changed.unit.profiles)) == ((), 1)


async def test_a_key_that_comes_later_opens_a_sealed_store(tmp_path: Path) -> None:
    """The key's file is followed like the store's."""
    keys = tmp_path / "keys"
    keys.touch(mode=0o600)
    keys.write_bytes(b"k" * 32)
    stores = AgentStores(tmp_path, clock=SystemClock(), seal=Seal(keys, record=tmp_path / "seals.json"))
    await stores.edit("main", key("openai:x", "k"))
    keys.unlink()
    async with following(source(stores)) as events:
        assert await events.next() == {"main": "failed"}
        keys.touch(mode=0o600)
        keys.write_bytes(b"k" * 32)
        assert await events.next() == ("main", {"openai:x": "k"})


async def test_an_empty_store_is_a_store(stores: AgentStores) -> None:
    """Its agent has orders of its own, if none; a store that is not there is none."""
    path = stores.of("main").path
    path.parent.mkdir(parents=True)
    path.write_text('{"version": 1, "profiles": {}}')
    path.chmod(0o600)
    async with following(source(stores)) as events:
        listed = await events.event()
        assert listed == UnitsListed((Unit("main", owner="main"),))
