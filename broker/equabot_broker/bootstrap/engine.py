"""The engine, wired: what moves, and what it is given."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from equabot_broker.bootstrap.sources import Sources, build_sources
from equabot_broker.bootstrap.stores import agent_stores, login_places, mirrors, secret_stores
from equabot_broker.config.model import Config
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.availability import Availability
from equabot_broker.engine.expiry import Expiry
from equabot_broker.engine.health import Readiness
from equabot_broker.engine.leases.gateway_access import GatewayAccess
from equabot_broker.engine.leases.outcomes import Outcomes
from equabot_broker.engine.leases.service import LeaseService
from equabot_broker.engine.leases.suspension_control import SuspensionControl
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.profiles.confirmation import Confirmation
from equabot_broker.engine.profiles.ingest import FollowedSource, Ingest
from equabot_broker.engine.profiles.order_override import OrderOverrides
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.profiles.suitability import Suitability
from equabot_broker.engine.refresh.login_mirror import LoginMirror
from equabot_broker.engine.refresh.redemption import Redemption
from equabot_broker.engine.refresh.scheduler import RefreshScheduler
from equabot_broker.engine.refresh.usage_sync import UsageSync
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.ports import StateStore
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.telemetry.events import Events
from equabot_broker.upstream.probe import HttpProbes
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint


class Engine:
    """The moving parts, wired. Building them reads the state store and nothing else."""

    def __init__(self, config: Config, *, clock: SystemClock, store: StateStore, events: Events) -> None:
        stored = store.load()
        self.registry = ProfileRegistry(
            clock=clock, store=store, events=events, warn_within=config.expiry.warn_within, usage=stored.usage
        )
        self.suitability = Suitability(clock=clock, catalog=config.catalog)
        self.resolver = Resolver(
            clock=clock,
            store=store,
            catalog=config.catalog,
            policies=config.policies,
            registry=self.registry,
            suitability=self.suitability,
            configured_order=config.order,
            orders=stored.orders,
            pins=stored.pins,
            places=config.places,
        )
        self._clock = clock
        self._config = config
        self._sources = build_sources(config, clock)
        self.ingest = Ingest(
            self._sources.all,
            tail=self._sources.tail,
            clock=clock,
            store=store,
            events=events,
            registry=self.registry,
            stale_budget=config.expiry.stale_budget,
            versions=stored.versions,
        )
        self._stores = stores = agent_stores(config, clock)
        self.order_overrides = OrderOverrides(
            resolver=self.resolver, ingest=self.ingest, registry=self.registry, stores=_followed(config, stores)
        )
        self.login_mirror = LoginMirror(clock=clock, registry=self.registry, mirrors=mirrors(config, clock))
        self.usage_sync = UsageSync(clock=clock, registry=self.registry, stores=stores, catalog=config.catalog)
        self.logins = login_places(config, stores, clock)
        self._redemption = Redemption(clock=clock, stores=self.logins, endpoint=HttpTokenEndpoint(), rules=config.rules)
        self.refresh_scheduler = RefreshScheduler(
            clock=clock,
            events=events,
            registry=self.registry,
            redemption=self._redemption,
            reread=self.ingest.look_again,
            chance=random.random,
            identities=self._sources.identities,
        )
        self._probes = HttpProbes(config.catalog, allowed=config.probe)
        self.confirmation = Confirmation(clock=clock, events=events, registry=self.registry, probes=self._probes)
        self.outcomes = Outcomes(
            clock=clock,
            policies=config.policies,
            registry=self.registry,
            suitability=self.suitability,
            refresh_scheduler=self.refresh_scheduler,
            confirmation=self.confirmation,
            cooldowns=config.cooldowns,
            chance=random.random,
        )
        self.suspensions = Suspensions(stored.suspensions)
        self.lease_service = LeaseService(
            clock=clock,
            store=store,
            events=events,
            policies=config.policies,
            resolver=self.resolver,
            registry=self.registry,
            outcomes=self.outcomes,
            options=config.leases,
            deliveries=_deliveries(config),
            suspensions=self.suspensions,
            leases=stored.leases,
        )
        self.suspension_control = SuspensionControl(
            clock=clock,
            store=store,
            events=events,
            policies=config.policies,
            lease_service=self.lease_service,
            suspensions=self.suspensions,
        )
        self.gateway_access = GatewayAccess(
            clock=clock,
            events=events,
            policies=config.policies,
            registry=self.registry,
            lease_service=self.lease_service,
            refresh_scheduler=self.refresh_scheduler,
            outcomes=self.outcomes,
        )
        self.expiry = Expiry(clock=clock, store=store, events=events, lease_service=self.lease_service, registry=self.registry)
        self.availability = Availability(
            policies=config.policies,
            registry=self.registry,
            resolver=self.resolver,
            lease_service=self.lease_service,
            suspensions=self.suspensions,
        )
        self.readiness = Readiness(
            catalog=config.catalog,
            registry=self.registry,
            ingest=self.ingest,
            availability=self.availability,
            suspensions=self.suspensions,
            required=config.required,
        )

    async def prepare(self, config: Config) -> "Prepared":
        """Reads what is new in the sources of another configuration. Nothing is in effect before `apply`."""
        sources = build_sources(config, self._clock, self._sources)
        return Prepared(config, sources, await self.ingest.following(sources.all))

    def forsake(self, prepared: "Prepared") -> None:
        """That configuration is not to be."""
        self.ingest.forsake(prepared.followed)

    def apply(self, prepared: "Prepared") -> int:
        """The configuration is in effect when this returns, in one turn of the loop: no one sees a part of it. Returns how many
        leases it has ended. Raises nothing that could leave it half applied."""
        config, before = prepared.config, self._config
        self._config, self._sources = config, prepared.sources
        known = config.catalog.providers
        changed = frozenset(name for name, old in before.catalog.providers.items() if known.get(name) != old)
        self.logins.add(secret_stores(config, self._clock, lacking=self.logins.lacks))
        self._redemption.apply(config.rules)
        self._probes.apply(config.catalog, allowed=config.probe)
        self.refresh_scheduler.apply(prepared.sources.identities)
        self.usage_sync.apply(config.catalog)
        self.order_overrides.apply(_followed(config, self._stores))
        self.login_mirror.apply(mirrors(config, self._clock))
        self.resolver.apply(
            catalog=config.catalog, policies=config.policies, configured_order=config.order, places=config.places
        )
        self.suitability.apply(config.catalog)
        self.outcomes.apply(policies=config.policies, cooldowns=config.cooldowns)
        self.suspension_control.apply(config.policies)
        self.gateway_access.apply(config.policies)
        ended = self.lease_service.apply(
            policies=config.policies, options=config.leases, deliveries=_deliveries(config), told=changed
        )
        self.ingest.apply(
            prepared.followed,
            tail=prepared.sources.tail,
            stale_budget=config.expiry.stale_budget,
            known=lambda profile: profile.provider in known,
        )
        self.registry.apply(warn_within=config.expiry.warn_within)
        self.registry.reordered()
        self.readiness.apply(catalog=config.catalog, policies=config.policies, required=config.required)
        return ended


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that could be in effect at once."""

    config: Config
    sources: Sources
    followed: Sequence[FollowedSource]


def _followed(config: Config, stores: AgentStores) -> AgentStores | None:
    return stores if any(spec.kind == "profile_store" for spec in config.sources) else None


def _deliveries(config: Config) -> frozenset[Delivery]:
    """A token is worth something only where there is a gateway that knows it."""
    return frozenset({Delivery.RAW} if config.gateway.mode is GatewayMode.OFF else Delivery)
