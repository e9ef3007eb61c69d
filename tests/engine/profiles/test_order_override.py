"""Orders set while a broker runs: in the agents' stores, on real files that are followed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.errors import BrokerError, InvalidArgument, ProfileNotFound, ProviderUnknown, SourceNotSynced
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import with_entry, with_order
from equabot_broker.providers import BUILT_IN
from equabot_broker.sources.profile_store import ProfileStores
from equabot_broker.storage.agent_stores import AgentStores
from tests.fakes.engine import Engine, profile, wired
from tests.fakes.following import live_watch
from tests.fakes.state import MemoryStateStore

A, B = "anthropic:a", "anthropic:b"
AGENTS = ("main", "coder")


class Rig:
    """Resolver over real stores."""

    def __init__(self, home: Path, state: MemoryStateStore, *, followed: bool = True) -> None:
        clock = SystemClock()
        self.state = state
        self.stores = AgentStores(home, clock=clock)
        source = ProfileStores({a: self.stores.of(a) for a in AGENTS}, rules=DiscoveryRules(BUILT_IN), watch=live_watch())
        engine = wired(
            clock=clock, store=state, profiles=self.stores, sources=[source], agents=AGENTS, order={"anthropic": (A,)},
            orders_in_stores=followed,
        )  # fmt: skip
        self.registry, self.resolver, self.ingest = engine.registry, engine.resolver, engine.ingest
        self.order_overrides = engine.order_overrides

    def next(self, agent: str = "main") -> str:
        return self.resolver.choose(agent, "anthropic").candidate.id

    def written(self, agent: str = "main") -> object:
        path = self.stores.of(agent).path
        return json.loads(path.read_text()).get("order") if path.exists() else None


@asynccontextmanager
async def rig(home: Path, state: MemoryStateStore | None = None, *, followed: bool = True) -> AsyncIterator[Rig]:
    made = Rig(home, state or MemoryStateStore(), followed=followed)
    for name in (A, B):
        entry = {"type": "api_key", "provider": "anthropic", "key": f"key-of-{name[-1]}"}
        await made.stores.edit("main", lambda d, name=name, entry=entry: with_entry(d, name, entry))  # type: ignore[misc]
    async with asyncio.TaskGroup() as group:
        following = group.create_task(made.ingest.run())
        async with asyncio.timeout(60):
            await made.ingest.wait_attempted()
            yield made
        following.cancel()


async def test_an_order_is_in_the_agents_store_and_counts_when_it_is_set(tmp_path: Path) -> None:
    """Before the configured one, for that agent alone; taking it away brings the configured one back."""
    async with rig(tmp_path) as made:
        assert (made.next(), made.next("coder")) == (A, A)
        assert await made.order_overrides.set("coder", "claude", ["b", B]) == (B,)
        assert made.written("coder") == {"anthropic": [B]}
        assert (made.next(), made.next("coder")) == (A, B)
        assert made.resolver.order("coder", "anthropic") == (B,)
        assert await made.order_overrides.set("coder", "anthropic", ()) == ()
        assert (made.next("coder"), made.written("coder"), made.resolver.order("coder", "anthropic")) == (A, {}, ())


async def test_an_order_that_another_program_writes_counts(tmp_path: Path) -> None:
    """As soon as it is read; it takes the place of none in the broker's own state."""
    async with rig(tmp_path) as made:
        assert made.next() == A
        await made.stores.edit("main", lambda document: with_order(document, "anthropic", [B]))
        assert await made.ingest.wait_for(lambda: made.next() == B, within=5)
        assert made.state.load().orders == {}


async def test_an_order_in_the_brokers_own_state_counts_until_one_is_stored(tmp_path: Path) -> None:
    """As it may be there from a time when stores were no source."""
    state = MemoryStateStore()
    state.put_order(("main", "anthropic"), (B,))
    state.flush()
    async with rig(tmp_path, state) as made:
        assert made.next() == B
        await made.order_overrides.set("main", "anthropic", [A])
        assert made.next() == A
        assert state.load().orders == {}
        await made.order_overrides.set("main", "anthropic", ())
        assert made.resolver.order("main", "anthropic") == ()


@pytest.mark.parametrize(
    ("provider", "profiles", "error"),
    [
        ("anthropic", ["a", "nobody"], ProfileNotFound),
        ("anthropic", ["openai:a"], InvalidArgument),
        ("anthropic", [""], InvalidArgument),
        ("acme", ["a"], ProviderUnknown),
    ],
)
async def test_a_faulty_order_is_refused_before_anything_is_written(
    tmp_path: Path, provider: str, profiles: list[str], error: type[BrokerError]
) -> None:
    """What was stored before stays."""
    async with rig(tmp_path) as made:
        await made.order_overrides.set("main", "anthropic", [B])
        with pytest.raises(error):
            await made.order_overrides.set("main", provider, profiles)
        assert (made.next(), made.written()) == (B, {"anthropic": [B]})


async def test_unwritable_store_is_reported(tmp_path: Path) -> None:
    """The file is as it was, and so is the order."""
    async with rig(tmp_path) as made:
        path = made.stores.of("coder").path
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with pytest.raises(SourceNotSynced, match="breaks off"):
            await made.order_overrides.set("coder", "anthropic", [B])
        assert path.read_text() == "{"
        assert made.resolver.order("coder", "anthropic") == ()


async def test_order_is_in_the_state_without_stores() -> None:
    """As for every profile that is in no store."""
    engine = Engine()
    engine.put(profile(A), profile(B))
    assert await engine.order_overrides.set("main", "anthropic", ["b"]) == (B,)
    assert engine.store.load().orders == {("main", "anthropic"): (B,)}
    assert engine.resolver.choose("main", "anthropic").candidate.id == B
