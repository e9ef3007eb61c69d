"""What stores remember of use: written back, taken over, and neither lost nor doubled whoever writes when."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import UnitsListed
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, with_entry, without_entry
from equabot_broker.formats.auth_entries import store_unit
from equabot_broker.formats.auth_usage import usage_of, with_usage
from equabot_broker.providers import BUILT_IN
from equabot_broker.sources.profile_store import ProfileStores
from equabot_broker.storage.agent_stores import AgentStores
from tests.fakes.clock import FakeClock
from tests.fakes.engine import wired
from tests.fakes.following import live_watch
from tests.fakes.profile_store import MemoryProfileStore
from tests.fakes.source import FakeSource
from tests.fakes.state import MemoryStateStore

NAME = "openai:x"
KEY = ("", NAME)
NOW = FakeClock().now()
RULES = DiscoveryRules(BUILT_IN)
THEIR_FAILURE = Usage(last_used=NOW + 5, last_failure=NOW + 5, cooldown_until=NOW + 65, error_count=1)


def failure(at: float, count: int = 1) -> Usage:
    return Usage(last_used=at, last_failure=at, cooldown_until=at + 60, error_count=count, failure_counts={"rate_limit": count})


class Rig:
    """The engine's memory over a store without a disk, which a test reads and writes; time stands still."""

    def __init__(self, *, state: MemoryStateStore | None = None, agents: tuple[str, ...] = ("main",)) -> None:
        self.clock = FakeClock()
        self.state = state or MemoryStateStore()
        self.stores = Slow()
        self.agents = agents
        for agent in agents:
            self.stores.put(agent, {NAME: {"type": "api_key", "key": "k"}})
        self.writes: list[str] = []
        self.begin()

    def begin(self) -> None:
        """A broker starts."""
        engine = wired(clock=self.clock, store=self.state, profiles=Counting(self.stores, self.writes), sources=[FakeSource()])
        self.registry, self.ingest, self.usage_sync = engine.registry, engine.ingest, engine.usage_sync

    def read(self) -> None:
        """What is in the stores is read."""
        units = [
            store_unit(document, rules=RULES, source="fake", name=agent, origin=agent, owner=agent)
            for agent, document in self.stores.documents.items()
        ]
        self.ingest._take(0, UnitsListed(tuple(units)))

    def other_writes(self, change: Callable[[AuthDocument], AuthDocument], agent: str = "main") -> None:
        """Another program writes into a store."""
        self.stores.documents[agent] = change(self.stores.documents[agent])

    def other_uses(self, usage: Usage) -> None:
        self.other_writes(lambda document: with_usage(document, {NAME: usage}))

    def stored(self, agent: str = "main") -> Usage:
        return usage_of(self.stores.documents[agent], NAME)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.usage_sync.run())
            await self.clock.elapse(0)
            yield
            task.cancel()


class Slow(MemoryProfileStore):
    """Its writers come back once nobody is `holding` them up."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = asyncio.Event()
        self.holding.set()

    async def edit(self, agent: str, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        written = await super().edit(agent, change)
        await self.holding.wait()
        return written


class Counting:
    """Notes which stores are written."""

    def __init__(self, stores: MemoryProfileStore, writes: list[str]) -> None:
        self._stores = stores
        self._writes = writes
        self.locked = stores.locked
        self.read = stores.read

    async def edit(self, agent: str, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        self._writes.append(agent or "main")
        return await self._stores.edit(agent, change)


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.read()
    return made


async def test_a_failure_is_in_the_store_at_once(rig: Rig) -> None:
    """And its end as well."""
    async with rig.running():
        rig.registry.replace_usage(KEY, failure(NOW))
        await rig.clock.elapse(0)
        assert rig.stored() == failure(NOW)
        rig.registry.replace_usage(KEY, Usage(last_used=NOW + 1))
        await rig.clock.elapse(0)
        assert rig.stored() == Usage(last_used=NOW + 1)
    assert rig.writes == ["main", "main"]


async def test_mere_use_is_in_the_store_within_a_minute(rig: Rig) -> None:
    """However often it is used, one write a minute; a failure takes it along."""
    async with rig.running():
        for _ in range(12):
            rig.registry.touch(KEY)
            rig.registry.flush_used()
            await rig.clock.elapse(5)
        assert rig.writes == ["main"]
        used = rig.clock.now()
        rig.registry.touch(KEY)
        rig.registry.flush_used()
        await rig.clock.elapse(5)
        assert rig.writes == ["main"]
        rig.registry.replace_usage(KEY, failure(used))
        await rig.clock.elapse(0)
        assert (rig.stored(), rig.writes) == (failure(used), ["main", "main"])
        await rig.clock.elapse(300)
        assert rig.writes == ["main", "main"]


async def test_usage_of_another_program_is_adopted(rig: Rig) -> None:
    """Its cooldown counts here, is kept across a restart, and is not written back."""
    rig.other_uses(failure(NOW, 3))
    rig.read()
    assert rig.registry.usage(KEY) == failure(NOW, 3)
    found = rig.registry.find("main", NAME)
    assert found is not None
    assert found[1].standing.cooling_until == NOW + 60
    rig.state.flush()
    assert rig.state.load().usage[KEY] == failure(NOW, 3)
    async with rig.running():
        await rig.clock.elapse(300)
    assert rig.writes == []


async def test_own_usage_is_not_adopted_again(rig: Rig) -> None:
    """Read back late, after the broker has learned more, it changes nothing."""
    async with rig.running():
        rig.registry.replace_usage(KEY, failure(NOW + 0.0004, 1))
        await rig.clock.elapse(0)
        rig.registry.replace_usage(KEY, failure(NOW + 9, 2))
        rig.read()
        assert rig.registry.usage(KEY) == failure(NOW + 9, 2)
        await rig.clock.elapse(0)
        assert rig.stored() == failure(NOW + 9, 2)


async def test_read_during_a_write_changes_nothing(rig: Rig) -> None:
    """The file is followed faster than its writer comes back; what ended meanwhile does not begin again."""
    healed = Usage(last_used=NOW + 1)
    rig.stores.holding.clear()
    async with rig.running():
        rig.registry.replace_usage(KEY, failure(NOW))
        await rig.clock.elapse(0)
        assert rig.stored() == failure(NOW), "the write is not under way"
        rig.registry.replace_usage(KEY, healed)
        rig.read()
        assert rig.registry.usage(KEY) == healed
        rig.stores.holding.set()
        await rig.clock.elapse(0)
        assert rig.stored() == healed


async def test_what_comes_during_a_retry_goes_with_the_next_write(rig: Rig) -> None:
    """At once: the store can be written again."""
    rig.stores.broken = "no space"
    async with rig.running():
        rig.registry.replace_usage(KEY, failure(NOW))
        await rig.clock.elapse(0)
        rig.stores.broken = ""
        rig.stores.holding.clear()
        await rig.clock.elapse(2)
        assert rig.writes == ["main", "main"]
        rig.registry.replace_usage(KEY, failure(NOW + 9, 2))
        rig.stores.holding.set()
        await rig.clock.elapse(0)
        assert rig.stored() == failure(NOW + 9, 2)


async def test_concurrent_usage_is_merged(rig: Rig) -> None:
    """Whether the other's was read before or is found in the file when ours is written."""
    for read_first in (True, False):
        rig.other_uses(replace(THEIR_FAILURE, last_failure=rig.clock.now(), cooldown_until=rig.clock.now() + 99))
        if read_first:
            rig.read()
        rig.registry.touch(KEY)
        rig.clock.advance(1)
        rig.registry.flush_used()
        async with rig.running():
            await rig.clock.elapse(61)
        assert rig.stored().error_count == 1
        assert rig.stored().last_used >= THEIR_FAILURE.last_used
        assert rig.registry.usage(KEY).cooldown_until == rig.stored().cooldown_until > 0
        rig.read()
        assert rig.registry.usage(KEY) == rig.stored()
        rig.clock.advance(200)


async def test_a_rejection_stays_though_no_store_knows_of_it(rig: Rig) -> None:
    """It ends with the credential's material, not with what another program writes."""
    rejected = replace(failure(NOW), cooldown_until=0.0, rejected="refused (401)", rejected_version=7)
    async with rig.running():
        rig.registry.replace_usage(KEY, rejected)
        await rig.clock.elapse(0)
        rig.other_uses(Usage(last_used=NOW + 30))
        rig.read()
        assert rig.registry.usage(KEY) == Usage(last_used=NOW + 30, rejected="refused (401)", rejected_version=7)


@pytest.mark.parametrize(
    ("ours", "theirs", "result"),
    [
        (Usage(), failure(NOW), failure(NOW)),
        (failure(NOW), Usage(), failure(NOW)),
        (failure(NOW), failure(NOW + 50, 2), failure(NOW + 50, 2)),
        (failure(NOW), Usage(last_used=NOW + 50), Usage(last_used=NOW + 50)),
        (Usage(last_used=NOW + 50), Usage(last_used=NOW), Usage(last_used=NOW + 50)),
        (failure(NOW), failure(NOW), failure(NOW)),
    ],
)
async def test_when_a_broker_starts_the_later_of_both_counts(ours: Usage, theirs: Usage, result: Usage) -> None:
    """The store, unless a failure did not reach it any more; then it does now."""
    state = MemoryStateStore()
    state.put_usage(KEY, ours)
    state.flush()
    rig = Rig(state=state)
    rig.other_uses(theirs)
    rig.read()
    assert rig.registry.usage(KEY) == result
    async with rig.running():
        await rig.clock.elapse(61)
    assert rig.stored() == result


async def test_a_store_that_cannot_be_written_is_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Less and less often, said once; what came meanwhile goes along, and nothing is lost."""
    rig.stores.broken = "the volume is full: free some space"
    async with rig.running():
        for number in range(4):
            rig.registry.replace_usage(KEY, failure(NOW + number, number + 1))
            await rig.clock.elapse(0)
        assert len(rig.writes) == 1
        await rig.clock.elapse(1000)
        tried = len(rig.writes)
        assert 8 <= tried <= 20
        rig.stores.broken = ""
        await rig.clock.elapse(300)
        assert rig.stored() == failure(NOW + 3, 4)
        rig.registry.replace_usage(KEY, Usage(last_used=NOW + 5))
        await rig.clock.elapse(0)
        assert rig.stored() == Usage(last_used=NOW + 5)
    assert [record.getMessage().rpartition(": the")[2] for record in caplog.records] == [" volume is full: free some space"]


async def test_each_store_keeps_its_own(rig: Rig) -> None:
    """A profile of an agent's own and everybody's of the same name are two; an entry that has gone is left alone."""
    two = Rig(agents=("main", "coder"))
    two.read()
    async with two.running():
        two.registry.replace_usage(("coder", NAME), failure(NOW))
        await two.clock.elapse(0)
        assert (two.stored("coder"), two.stored(), two.writes) == (failure(NOW), Usage(), ["coder"])
        two.other_writes(lambda document: without_entry(document, NAME), "coder")
        two.registry.replace_usage(("coder", NAME), failure(NOW + 1, 2))
        await two.clock.elapse(300)
        assert "usageStats" not in {k: v for k, v in two.stores.documents["coder"].raw.items() if v}
        assert two.writes == ["coder", "coder"]
        two.read()
        two.registry.replace_usage(("coder", NAME), failure(NOW + 2, 3))
        await two.clock.elapse(300)
        assert two.writes == ["coder", "coder"]


async def test_profile_outside_stores_is_not_written() -> None:
    """A key of the environment has no place there."""
    rig = Rig()
    async with rig.running():
        rig.registry.replace_usage(("", "openai:env"), failure(NOW))
        rig.registry.replace_usage(KEY, failure(NOW))
        await rig.clock.elapse(300)
    assert rig.writes == []


async def test_on_real_files_two_brokers_see_each_others_cooldowns(tmp_path: Path) -> None:
    """Both write, both follow; nothing that either learned is lost, and in the end nobody writes any more."""
    clock = SystemClock()
    stores = AgentStores(tmp_path, clock=clock)
    names = [f"openai:{n}" for n in range(6)]
    for name in names:
        await stores.edit("main", lambda d, name=name: with_entry(d, name, {"type": "api_key", "key": name}))  # type: ignore[misc]
    boards = []
    async with asyncio.TaskGroup() as group, asyncio.timeout(60):
        tasks = []
        for _ in range(2):
            state = MemoryStateStore()
            source = ProfileStores({"main": stores.of("main")}, rules=RULES, watch=live_watch())
            engine = wired(clock=clock, store=state, profiles=stores, sources=[source])
            tasks += [group.create_task(engine.ingest.run()), group.create_task(engine.usage_sync.run())]
            await engine.ingest.wait_attempted()
            boards.append(engine.registry)
        now = clock.now()
        for number, name in enumerate(names):
            boards[number % 2].replace_usage(("", name), failure(round(now) + number))

        def agreed() -> bool:
            return all(
                board.usage(("", name)) == failure(round(now) + number) for board in boards for number, name in enumerate(names)
            )

        while not agreed():  # noqa: ASYNC110  (the file is followed by others)
            await asyncio.sleep(0.005)
        await stores.edit("main", lambda d: with_entry(d, "openai:last", {"type": "api_key", "key": "last"}))
        path = stores.of("main").path
        written = path.stat().st_ino
        while not all(board.find("main", "openai:last") for board in boards):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert path.stat().st_ino == written
        for task in tasks:
            task.cancel()
