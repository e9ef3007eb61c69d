"""The real engine, wired as the composition root wires it, on a clock that stands still and sources that a test fills."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.discovery import DiscoveryRules
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.material import Unit, UnitsListed
from equabot_broker.domain.policies import AgentPolicy, Delivery, Policies
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.availability import Availability
from equabot_broker.engine.expiry import Expiry
from equabot_broker.engine.health import Readiness
from equabot_broker.engine.leases.gateway_access import GatewayAccess
from equabot_broker.engine.leases.outcomes import Outcomes
from equabot_broker.engine.leases.service import LeaseService
from equabot_broker.engine.leases.suspension_control import SuspensionControl
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.profiles.confirmation import Confirmation
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.engine.profiles.order_override import OrderOverrides
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.profiles.suitability import Suitability
from equabot_broker.engine.refresh.redemption import Redemption
from equabot_broker.engine.refresh.scheduler import RefreshScheduler
from equabot_broker.ports import Identities, TokenEndpoint
from equabot_broker.providers import PROVIDERS
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


class Engine:
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
        stored = self.store.load()
        self.registry = ProfileRegistry(
            clock=self.clock, store=self.store, events=self.events, warn_within=86400.0, usage=stored.usage
        )
        self.suitability = Suitability(clock=self.clock, catalog=self.catalog)
        self.resolver = Resolver(
            clock=self.clock, store=self.store, catalog=self.catalog, policies=self.policies, registry=self.registry,
            suitability=self.suitability, configured_order=order or {}, orders=stored.orders, pins=stored.pins,
        )  # fmt: skip
        self.ingest = Ingest(
            self.sources, tail=frozenset(), clock=self.clock, store=self.store, events=self.events,
            registry=self.registry, stale_budget=600.0, versions=stored.versions,
        )  # fmt: skip
        self.order_overrides = OrderOverrides(
            resolver=self.resolver, ingest=self.ingest, registry=self.registry, stores=None
        )  # fmt: skip
        self.redemption = Redemption(
            clock=self.clock, stores=LoginPlaces(self.profiles), endpoint=self.endpoint, rules=DiscoveryRules(self.catalog)
        )  # fmt: skip
        self.refresh_scheduler = RefreshScheduler(
            clock=self.clock, events=self.events, registry=self.registry, redemption=self.redemption,
            reread=self.ingest.look_again, chance=lambda: 0.0, identities=identities,
        )  # fmt: skip
        self.probes = probes or ScriptedProbes()
        self.confirmation = Confirmation(clock=self.clock, events=self.events, registry=self.registry, probes=self.probes)
        self.outcomes = Outcomes(
            clock=self.clock, policies=self.policies, registry=self.registry, suitability=self.suitability,
            refresh_scheduler=self.refresh_scheduler, confirmation=self.confirmation, cooldowns=CooldownOptions(),
            chance=lambda: 0.0,
        )  # fmt: skip
        self.suspensions = Suspensions(stored.suspensions)
        self.lease_service = LeaseService(
            clock=self.clock, store=self.store, events=self.events, policies=self.policies, resolver=self.resolver,
            registry=self.registry, outcomes=self.outcomes, options=lease_options or LeaseOptions(),
            deliveries=deliveries, suspensions=self.suspensions, leases=stored.leases,
        )  # fmt: skip
        self.suspension_control = SuspensionControl(
            clock=self.clock, store=self.store, events=self.events, policies=self.policies, lease_service=self.lease_service,
            suspensions=self.suspensions,
        )  # fmt: skip
        self.gateway_access = GatewayAccess(
            clock=self.clock, events=self.events, policies=self.policies, registry=self.registry,
            lease_service=self.lease_service, refresh_scheduler=self.refresh_scheduler, outcomes=self.outcomes,
        )  # fmt: skip
        self.availability = Availability(
            policies=self.policies,
            registry=self.registry,
            resolver=self.resolver,
            lease_service=self.lease_service,
            suspensions=self.suspensions,
        )
        self.readiness = Readiness(
            catalog=self.catalog, registry=self.registry, ingest=self.ingest, availability=self.availability,
            suspensions=self.suspensions, required=required,
        )  # fmt: skip
        self.expiry = Expiry(
            clock=self.clock, store=self.store, events=self.events, lease_service=self.lease_service, registry=self.registry
        )

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
            await self.ingest.wait_settled()
            while not all(source._queue.empty() for source in self.sources):  # noqa: ASYNC110 - a queue has no such event
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)
