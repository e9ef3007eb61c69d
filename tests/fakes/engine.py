"""The real engine with its own wiring, on a clock that a test moves and sources that a test fills."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.material import Unit, UnitsListed
from equabot_broker.domain.policies import AgentPolicy, Delivery, Policies
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine import wiring
from equabot_broker.ports import Clock, Identities, Probes, ProfileStore, Source, StateStore, TokenEndpoint
from equabot_broker.providers import BUILT_IN, PROVIDERS
from equabot_broker.storage.login_places import LoginPlaces
from equabot_broker.telemetry.events import Event, Events
from tests.fakes.clock import FakeClock
from tests.fakes.probes import ScriptedProbes
from tests.fakes.profile_store import MemoryProfileStore
from tests.fakes.scripted_endpoint import UNREACHED, ScriptedEndpoint
from tests.fakes.source import FakeSource
from tests.fakes.state import MemoryStateStore

ANYTHING = AgentPolicy(providers=frozenset({"*"}), max_leases=10_000, max_requests=10_000)


def profile(
    profile_id: str, secret: str | None = "secret-of-a-profile", *, mode: Mode = Mode.API_KEY, expires_at: float | None = None,
    source: str = "fake", agent: str = "", fault: str = "",
) -> Profile:  # fmt: skip
    """A profile as a source would deliver it."""
    return Profile(
        id=profile_id,
        provider=profile_id.partition(":")[0],
        mode=mode,
        source=source,
        unit="unit",
        origin=f"{source} {profile_id}",
        secret=None if secret is None else SecretValue(secret),
        fault=fault or ("malformed" if secret is None else ""),
        expires_at=expires_at,
        agent=agent,
    )


def _ports(
    *, clock: Clock, store: StateStore, events: Events, profiles: ProfileStore, endpoint: TokenEndpoint, probes: Probes,
    blocked: Callable[[], bool] = lambda: False,
) -> wiring.EnginePorts:  # fmt: skip
    return wiring.EnginePorts(
        clock=clock, store=store, events=events, profile_stores=profiles, login_stores=LoginPlaces(profiles),
        token_endpoint=endpoint, probes=probes, chance=lambda: 0.0, blocked=blocked,
    )  # fmt: skip


def _config(
    *, catalog: Catalog, policies: Policies, sources: Sequence[Source], identities: Identities | None = None,
    order: Mapping[str, tuple[str, ...]], leases: LeaseOptions, deliveries: frozenset[Delivery], required: tuple[str, ...] = (),
    mirrors: Mapping[str, Callable[[], object]], orders_in_stores: bool = False,
) -> wiring.EngineConfig:  # fmt: skip
    return wiring.EngineConfig(
        catalog=catalog, policies=policies, rules=DiscoveryRules(catalog), sources=sources, identities=identities,
        stale_budget=600.0, warn_within=86400.0, leases=leases, deliveries=deliveries, cooldowns=CooldownOptions(), order=order,
        required=required, mirrors=mirrors, orders_in_stores=orders_in_stores,
    )  # fmt: skip


def wired(
    *, clock: Clock, store: StateStore, profiles: ProfileStore, sources: Sequence[Source], agents: Sequence[str] = ("main",),
    order: Mapping[str, tuple[str, ...]] | None = None, orders_in_stores: bool = False,
) -> wiring.Engine:  # fmt: skip
    """An engine on a clock, stores and sources of the test's choice, where agents may have anything."""
    return wiring.Engine(
        _ports(
            clock=clock, store=store, events=Events(), profiles=profiles, endpoint=ScriptedEndpoint(UNREACHED),
            probes=ScriptedProbes(),
        ),
        _config(
            catalog=BUILT_IN, policies=Policies(agents=dict.fromkeys(agents, ANYTHING)), sources=sources, order=order or {},
            leases=LeaseOptions(), deliveries=frozenset({Delivery.RAW}), mirrors={}, orders_in_stores=orders_in_stores,
        ),
    )  # fmt: skip


class Engine(wiring.Engine):
    """The moving parts of a broker. `running` makes them move."""

    def __init__(
        self,
        *,
        agents: Mapping[str, AgentPolicy] | None = None,
        sources: tuple[FakeSource, ...] | None = None,
        providers: Mapping[str, Provider] | None = None,
        order: Mapping[str, tuple[str, ...]] | None = None,
        required: tuple[str, ...] = (),
        store: MemoryStateStore | None = None,
        clock: FakeClock | None = None,
        lease_options: LeaseOptions | None = None,
        profiles: MemoryProfileStore | None = None,
        endpoint: TokenEndpoint | None = None,
        identities: Identities | None = None,
        probes: ScriptedProbes | None = None,
        deliveries: frozenset[Delivery] = frozenset({Delivery.RAW}),
        mirrors: Mapping[str, Callable[[], object]] | None = None,
        blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock = clock or FakeClock()
        self.profiles = profiles or MemoryProfileStore()
        self.endpoint = endpoint or ScriptedEndpoint(UNREACHED)
        self.store = store or MemoryStateStore()
        self.sources = (FakeSource(),) if sources is None else sources
        self.emitted: list[Event] = []
        self.events = Events(self.emitted.append)
        self.policies = Policies(agents={"main": ANYTHING} if agents is None else agents)
        self.catalog = Catalog(PROVIDERS if providers is None else providers)
        self.probes = probes or ScriptedProbes()
        super().__init__(
            _ports(
                clock=self.clock, store=self.store, events=self.events, profiles=self.profiles, endpoint=self.endpoint,
                probes=self.probes, blocked=blocked,
            ),
            _config(
                catalog=self.catalog, policies=self.policies, sources=self.sources, identities=identities, order=order or {},
                leases=lease_options or LeaseOptions(), deliveries=deliveries, required=required, mirrors=mirrors or {},
            ),
        )  # fmt: skip

    def hold(self, *profiles: Profile, source: int = 0) -> None:
        """From now on the source holds these profiles and no others."""
        self.sources[source].push(UnitsListed((Unit("unit", profiles),)))

    def put(self, *profiles: Profile, source: int = 0) -> None:
        """As `hold`, but in effect when this returns: for tests in which nothing moves by itself."""
        self.ingest._take(source, UnitsListed((Unit("unit", profiles),)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows the sources and the clock, and refreshes what is due."""
        async with asyncio.TaskGroup() as group:
            moving = (self.ingest, self.expiry, self.refresh_scheduler, self.confirmation)
            loops = [group.create_task(part.run()) for part in moving]
            try:
                yield
            finally:
                for loop in loops:
                    loop.cancel()

    async def settle(self) -> None:
        """Waits until what was pushed before is in effect."""
        async with asyncio.timeout(60):
            await self.ingest.wait_attempted()
            while not all(source._queue.empty() for source in self.sources):  # noqa: ASYNC110 - a queue has no such event
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)
