"""The wiring of the engine: its parts, their dependencies, and all subscriptions between them.

No part subscribes itself. `Engine._subscribe` has all subscriptions inside the engine; `bootstrap.subscriptions` has those of
parts outside. Tests use the same wiring with other ports.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.cooldowns import CooldownOptions
from equabot_broker.domain.leases import LeaseOptions
from equabot_broker.domain.policies import Delivery, Policies
from equabot_broker.domain.provider import Catalog
from equabot_broker.domain.remedies import ANYWHERE, Places
from equabot_broker.engine.availability import Availability
from equabot_broker.engine.expiry import Expiry
from equabot_broker.engine.health import Readiness
from equabot_broker.engine.leases.admin import LeaseAdmin
from equabot_broker.engine.leases.enforcement import PolicyEnforcement
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.gateway_access import GatewayAccess
from equabot_broker.engine.leases.gateway_leases import GatewayLeases
from equabot_broker.engine.leases.grants import LeaseGrants
from equabot_broker.engine.leases.outcomes import Outcomes
from equabot_broker.engine.leases.quotas import Quotas
from equabot_broker.engine.leases.service import LeaseService
from equabot_broker.engine.leases.streams import StreamLeases
from equabot_broker.engine.leases.suspension_control import SuspensionControl
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.engine.leases.terms import LeaseTerms
from equabot_broker.engine.leases.write_behind import WriteBehind
from equabot_broker.engine.profiles.confirmation import Confirmation
from equabot_broker.engine.profiles.ingest import FollowedSource, Ingest
from equabot_broker.engine.profiles.order_override import OrderOverrides
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.profiles.statuses import ProfileStatuses
from equabot_broker.engine.profiles.suitability import Suitability
from equabot_broker.engine.refresh.login_mirror import LoginMirror
from equabot_broker.engine.refresh.redemption import Redemption
from equabot_broker.engine.refresh.scheduler import RefreshScheduler
from equabot_broker.engine.refresh.usage_sync import UsageSync
from equabot_broker.ports import Clock, Identities, LoginStore, Probes, ProfileStore, Source, StateStore, TokenEndpoint
from equabot_broker.telemetry.events import Events


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePorts:
    """The adapters that the engine uses. They stay the same across reloads.

    `chance` returns numbers in [0, 1). `blocked` returns whether the broker must not grant anything, for an outside reason.
    """

    clock: Clock
    store: StateStore
    events: Events
    profile_stores: ProfileStore
    login_stores: LoginStore
    token_endpoint: TokenEndpoint
    probes: Probes
    chance: Callable[[], float]
    blocked: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The configuration of the engine. A reload replaces all of it. Durations are in seconds.

    `sources` are in order of precedence; those named in `tail` form the last tier. `mirrors` synchronise the two places of a
    login, by profile id: they block, and raise StoreFault. `orders_in_stores`: profile stores are a source and keep the
    orders.
    """

    catalog: Catalog
    policies: Policies
    rules: DiscoveryRules
    sources: Sequence[Source]
    stale_budget: float
    warn_within: float
    leases: LeaseOptions
    deliveries: frozenset[Delivery]
    cooldowns: CooldownOptions
    order: Mapping[str, tuple[str, ...]]
    required: Sequence[str]
    mirrors: Mapping[str, Callable[[], object]]
    orders_in_stores: bool
    tail: frozenset[str] = frozenset()
    identities: Identities | None = None
    places: Places = ANYWHERE


@dataclass(frozen=True, slots=True)
class PreparedConfig:
    """A configuration that `Engine.apply` can apply without waiting."""

    config: EngineConfig
    followed: Sequence[FollowedSource]


class Engine:
    """All parts of the engine. The constructor reads only the state store."""

    def __init__(self, ports: EnginePorts, config: EngineConfig) -> None:
        self._ports = ports
        self._config = config
        clock, store, events = ports.clock, ports.store, ports.events
        stored = store.load()

        self.registry = ProfileRegistry(
            clock=clock, store=store, events=events, warn_within=config.warn_within, usage=stored.usage
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
        self.profile_statuses = ProfileStatuses(
            clock=clock, policies=config.policies, registry=self.registry, resolver=self.resolver
        )
        self.ingest = Ingest(
            config.sources,
            tail=config.tail,
            clock=clock,
            store=store,
            events=events,
            registry=self.registry,
            stale_budget=config.stale_budget,
            versions=stored.versions,
        )
        self.order_overrides = OrderOverrides(
            resolver=self.resolver, ingest=self.ingest, registry=self.registry, stores=self._order_stores(config)
        )
        self.confirmation = Confirmation(clock=clock, events=events, registry=self.registry, probes=ports.probes)

        self.login_mirror = LoginMirror(clock=clock, mirrors=config.mirrors)
        self.usage_sync = UsageSync(clock=clock, registry=self.registry, stores=ports.profile_stores, catalog=config.catalog)
        self.redemption = Redemption(clock=clock, stores=ports.login_stores, endpoint=ports.token_endpoint, rules=config.rules)
        self.refresh_scheduler = RefreshScheduler(
            clock=clock,
            events=events,
            registry=self.registry,
            redemption=self.redemption,
            reread=self.ingest.look_again,
            chance=ports.chance,
            identities=config.identities,
        )

        self.suspensions = Suspensions(stored.suspensions)
        self.lease_table = LeaseTable(clock=clock, store=store, events=events)
        self.failover = Failover(clock=clock, resolver=self.resolver, registry=self.registry, lease_table=self.lease_table)
        self.outcomes = Outcomes(
            clock=clock,
            policies=config.policies,
            registry=self.registry,
            suitability=self.suitability,
            refresh_scheduler=self.refresh_scheduler,
            confirmation=self.confirmation,
            cooldowns=config.cooldowns,
            chance=ports.chance,
        )
        self.lease_terms = LeaseTerms(
            catalog=config.catalog, policies=config.policies, options=config.leases, deliveries=config.deliveries
        )
        quotas, write_behind = Quotas(self.lease_table), WriteBehind(store)
        self.lease_grants = LeaseGrants(
            clock=clock,
            events=events,
            terms=self.lease_terms,
            resolver=self.resolver,
            registry=self.registry,
            suspensions=self.suspensions,
            lease_table=self.lease_table,
            failover=self.failover,
            quotas=quotas,
        )
        self.stream_leases = StreamLeases(
            clock=clock,
            events=events,
            registry=self.registry,
            lease_table=self.lease_table,
            failover=self.failover,
            grants=self.lease_grants,
        )
        self.lease_service = LeaseService(
            clock=clock,
            store=store,
            events=events,
            terms=self.lease_terms,
            registry=self.registry,
            suspensions=self.suspensions,
            lease_table=self.lease_table,
            failover=self.failover,
            grants=self.lease_grants,
            streams=self.stream_leases,
            outcomes=self.outcomes,
            quotas=quotas,
            write_behind=write_behind,
        )
        self.lease_admin = LeaseAdmin(clock=clock, lease_table=self.lease_table)
        self.gateway_leases = GatewayLeases(
            resolver=self.resolver,
            registry=self.registry,
            suspensions=self.suspensions,
            lease_table=self.lease_table,
            failover=self.failover,
            write_behind=write_behind,
        )
        self.policy_enforcement = PolicyEnforcement(
            clock=clock,
            store=store,
            terms=self.lease_terms,
            suspensions=self.suspensions,
            lease_table=self.lease_table,
            failover=self.failover,
        )
        self.policy_enforcement.adopt(stored.leases)
        self.suspension_control = SuspensionControl(
            clock=clock,
            store=store,
            events=events,
            policies=config.policies,
            lease_admin=self.lease_admin,
            suspensions=self.suspensions,
        )
        self.gateway_access = GatewayAccess(
            clock=clock,
            events=events,
            policies=config.policies,
            registry=self.registry,
            resolver=self.resolver,
            gateway_leases=self.gateway_leases,
            failover=self.failover,
            refresh_scheduler=self.refresh_scheduler,
            outcomes=self.outcomes,
        )

        self.availability = Availability(
            policies=config.policies,
            registry=self.registry,
            resolver=self.resolver,
            profile_statuses=self.profile_statuses,
            terms=self.lease_terms,
            suspensions=self.suspensions,
        )
        self.readiness = Readiness(
            catalog=config.catalog,
            registry=self.registry,
            ingest=self.ingest,
            availability=self.availability,
            required=config.required,
            blocked=ports.blocked,
        )
        self.expiry = Expiry(clock=clock, store=store, events=events, registry=self.registry, lease_table=self.lease_table)
        self._subscribe()

    def _subscribe(self) -> None:
        """All subscriptions inside the engine. Listeners are called in this order."""
        self.registry.listeners += [
            self.login_mirror.profiles_changed,
            self.refresh_scheduler.profiles_changed,
            self.confirmation.profiles_changed,
            self.failover.profiles_changed,
            self.readiness.profiles_changed,
        ]
        self.registry.usage_listeners += [self.usage_sync.usage_changed]
        self.registry.usage_in_stores = self.usage_sync.adopted
        self.ingest.listeners += [self.readiness.look_again]
        self.suspensions.listeners += [self.readiness.agent_changed]
        self.confirmation.listeners += [self.outcomes.probe_answered]
        self.registry.deadlines.wake = self.expiry.wake
        self.lease_table.deadlines.wake = self.expiry.wake

    def _order_stores(self, config: EngineConfig) -> ProfileStore | None:
        return self._ports.profile_stores if config.orders_in_stores else None

    async def prepare(self, config: EngineConfig) -> PreparedConfig:
        """Reads the new sources of another configuration. Nothing changes before `apply`."""
        return PreparedConfig(config, await self.ingest.following(config.sources))

    def discard(self, prepared: PreparedConfig) -> None:
        """Stops the new sources of a configuration that is not applied."""
        self.ingest.discard(prepared.followed)

    def apply(self, prepared: PreparedConfig) -> int:
        """Applies the configuration in one turn of the loop: no caller sees a part of it. Returns the number of ended leases.

        It raises nothing that could leave the configuration partly applied.
        """
        config, before = prepared.config, self._config
        self._config = config
        known = config.catalog.providers
        changed = frozenset(name for name, old in before.catalog.providers.items() if known.get(name) != old)
        self.redemption.apply(config.rules)
        self.refresh_scheduler.apply(config.identities)
        self.usage_sync.apply(config.catalog)
        self.order_overrides.apply(self._order_stores(config))
        self.login_mirror.apply(config.mirrors)
        self.resolver.apply(
            catalog=config.catalog, policies=config.policies, configured_order=config.order, places=config.places
        )
        self.profile_statuses.apply(config.policies)
        self.suitability.apply(config.catalog)
        self.outcomes.apply(policies=config.policies, cooldowns=config.cooldowns)
        self.suspension_control.apply(config.policies)
        self.gateway_access.apply(config.policies)
        self.lease_terms.apply(
            catalog=config.catalog, policies=config.policies, options=config.leases, deliveries=config.deliveries
        )
        ended = self.policy_enforcement.apply(changed)
        self.ingest.apply(
            prepared.followed,
            tail=config.tail,
            stale_budget=config.stale_budget,
            known=lambda profile: profile.provider in known,
        )
        self.registry.apply(warn_within=config.warn_within)
        self.registry.reordered()
        self.readiness.apply(catalog=config.catalog, policies=config.policies, required=config.required)
        return ended
