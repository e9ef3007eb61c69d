"""What every store of profiles promises to the engine: the real one, on files, and the one that tests use."""

import asyncio
import json
from pathlib import Path

import pytest

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, with_order
from equabot_broker.ports import ProfileStore, StoreFault
from equabot_broker.storage.agent_stores import AgentStores
from tests.fakes.profile_store import MemoryProfileStore

OTHERS = {"x:y": {"type": "api_key", "key": "k"}}


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AgentStores | MemoryProfileStore:
    return AgentStores(tmp_path, clock=SystemClock()) if request.param == "disk" else MemoryProfileStore()


async def test_an_agent_without_a_store_has_an_empty_one(store: ProfileStore) -> None:
    """And every agent has its own; "" is `main`."""
    assert await store.read("coder") == AuthDocument()
    await store.edit("", lambda document: with_order(document, "p", ["p:a"]))
    assert (await store.read("main")).order == {"p": ("p:a",)}
    assert (await store.read("coder")).order == {}


async def test_what_is_written_under_the_lock_is_read_after_it(store: ProfileStore) -> None:
    """In both ways of writing."""
    async with store.locked("main") as locked:
        assert locked.document == AuthDocument()
        await locked.replace(with_order(locked.document, "p", ["p:a"]))
        assert await locked.edit(lambda document: with_order(document, "q", ["q:b"])) == locked.document
    assert (await store.read("main")).order == {"p": ("p:a",), "q": ("q:b",)}


async def test_store_has_one_writer_at_a_time(store: ProfileStore) -> None:
    """Who comes second finds what the first has left."""
    inside: list[int] = []
    most = 0

    async def count(number: int) -> None:
        nonlocal most
        async with store.locked("main") as locked:
            inside.append(number)
            most = max(most, len(inside))
            await locked.replace(with_order(locked.document, f"p{number}", ["x:y"]))
            inside.remove(number)

    await asyncio.gather(*(count(number) for number in range(5)))
    assert (most, len((await store.read("main")).order)) == (1, 5)


async def test_a_program_that_ignores_locks_is_noticed(store: AgentStores | MemoryProfileStore) -> None:
    """What would be replaced has changed: nothing is written. An edit begins with what is there."""
    async with store.locked("main") as locked:
        before = locked.document
        await locked.replace(with_order(before, "p", ["x:y"]))
        _overwrite(store)
        with pytest.raises(StoreFault):
            await locked.replace(with_order(before, "p", ["p:a"]))
        await locked.edit(lambda document: with_order(document, "q", ["x:y"]))
    found = await store.read("main")
    assert (dict(found.entries), found.order) == (OTHERS, {"q": ("x:y",)})


def _overwrite(store: AgentStores | MemoryProfileStore) -> None:
    if isinstance(store, MemoryProfileStore):
        store.put("main", OTHERS)
    else:
        store.of("main").path.write_text(json.dumps({"version": 1, "profiles": OTHERS}))


async def test_failing_change_changes_nothing(store: ProfileStore) -> None:
    """And gives the lock back."""

    def fail(_: AuthDocument) -> AuthDocument:
        raise LookupError

    with pytest.raises(LookupError):
        await store.edit("main", fail)
    async with asyncio.timeout(60), store.locked("main") as locked:
        assert locked.document == AuthDocument()
