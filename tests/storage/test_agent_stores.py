"""The stores of all agents in an event loop: nothing waits in it, and no cancellation leaves a lock behind."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, with_order
from equabot_broker.ports import LockedStore, ProfileStore, StoreFault
from equabot_broker.storage.agent_stores import AgentStores


@pytest.fixture
def stores(tmp_path: Path) -> AgentStores:
    return AgentStores(tmp_path, clock=SystemClock())


def ordered(provider: str, *ids: str) -> Callable[[AuthDocument], AuthDocument]:
    return lambda document: with_order(document, provider, ids)


def test_implements_the_port(stores: AgentStores) -> None:
    """Checked by the type checker."""
    port: ProfileStore = stores
    assert port is stores


@pytest.mark.parametrize(("agent", "name"), [("", "main"), ("main", "main"), ("coder-2", "coder-2")])
async def test_each_agent_has_its_own_store(stores: AgentStores, tmp_path: Path, agent: str, name: str) -> None:
    """And nobody's is `main`'s."""
    await stores.edit(agent, ordered("anthropic", "anthropic:a"))
    assert (tmp_path / "agents" / name / "agent" / "auth-profiles.json").is_file()
    assert (await stores.read(agent)).order == {"anthropic": ("anthropic:a",)}


@pytest.mark.parametrize("agent", ["..", "a/b", ".hidden", "a\0b", "x" * 64, "é"])
async def test_invalid_agent_name_is_refused(stores: AgentStores, agent: str) -> None:
    """Not out of the directory, in particular."""
    with pytest.raises(StoreFault, match="not a valid name of an agent"):
        await stores.read(agent)


async def test_the_lock_holds_over_reads_writes_and_waiting(stores: AgentStores) -> None:
    """Whoever else edits comes after, and finds what was written."""
    entered = asyncio.Event()
    seen: list[tuple[str, ...]] = []

    async def other() -> None:
        await entered.wait()
        await stores.edit("main", lambda document: (seen.append(tuple(document.order)), document)[1])  # type: ignore[func-returns-value]

    async with asyncio.TaskGroup() as group:
        group.create_task(other())
        async with stores.locked("main") as locked:
            entered.set()
            await locked.replace(with_order(locked.document, "anthropic", ["anthropic:a"]))
            await asyncio.sleep(0.02)
            assert seen == []
            await locked.edit(ordered("openai", "openai:b"))
            assert set(locked.document.order) == {"anthropic", "openai"}
    assert seen == [("anthropic", "openai")]


async def test_error_in_the_context_releases_the_lock(stores: AgentStores) -> None:
    """The error is the one that was raised."""
    with pytest.raises(LookupError):
        async with stores.locked("main"):
            raise LookupError
    async with asyncio.timeout(60), stores.locked("main"):
        pass


@pytest.mark.parametrize("how", ["locked", "edit"])
async def test_cancelled_wait_leaves_no_lock(stores: AgentStores, tmp_path: Path, how: str) -> None:
    """Neither a lock that nobody holds nor a thread that goes on waiting for one."""

    async def wait() -> None:
        if how == "edit":
            await stores.edit("main", ordered("openai", "openai:never"))
        else:
            async with stores.locked("main"):
                pass

    async with stores.locked("main"):
        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 60)
    assert stores.of("main").edit(lambda document: document) == AuthDocument()


async def test_lock_acquired_during_cancellation_is_released(stores: AgentStores) -> None:
    """At whatever moment the cancellation falls."""

    async def take() -> None:
        async with stores.locked("main"):
            await asyncio.sleep(10)

    for number in range(30):
        taking = asyncio.ensure_future(take())
        await asyncio.sleep(number * 0.0002)
        taking.cancel()
        await asyncio.wait([taking])
        assert taking.cancelled()
    async with asyncio.timeout(60), stores.locked("main"):
        pass


async def test_a_write_that_is_under_way_ends_before_the_lock_does(stores: AgentStores, tmp_path: Path) -> None:
    """A cancelled replacement is there as a whole or not at all, and never after somebody else's."""

    async def write(number: int) -> None:
        async with stores.locked("main") as locked:
            await locked.replace(with_order(locked.document, "anthropic", [f"anthropic:{number}"]))

    for number in range(30):
        writing = asyncio.ensure_future(write(number))
        await asyncio.sleep(number * 0.0003)
        writing.cancel()
        await asyncio.wait([writing])
        await stores.edit("main", ordered("anthropic", "anthropic:after"))
        assert (await stores.read("main")).order == {"anthropic": ("anthropic:after",)}
    directory = tmp_path / "agents" / "main" / "agent"
    assert sorted(os.listdir(directory)) == [".auth-profiles.json.guard", "auth-profiles.json"]  # noqa: PTH208


async def test_store_faults_are_raised(stores: AgentStores, tmp_path: Path) -> None:
    """From wherever the store is entered."""
    directory = stores.directory("main")
    directory.mkdir(parents=True)
    (directory / "auth-profiles.json").write_text("{")

    async def enter(_: LockedStore | None = None) -> None:
        async with stores.locked("main"):
            pass

    for attempt in (stores.read("main"), stores.edit("main", lambda d: d), enter()):
        with pytest.raises(StoreFault, match="breaks off"):
            await attempt
