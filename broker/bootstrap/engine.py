"""The engine, wired: what moves, and what it is given."""

import random
from collections.abc import Sequence
from typing import Final

from broker.bootstrap.stores import agent_stores, login_places, mirrors
from broker.config.model import Config
from broker.domain.policies import MAIN, Delivery
from broker.engine.choosing import Choosing
from broker.engine.clock import SystemClock
from broker.engine.confirming import Confirming
from broker.engine.expiring import Expiring
from broker.engine.ingesting import Ingesting
from broker.engine.leasing import Leasing
from broker.engine.mirroring import Mirroring
from broker.engine.ordering import Ordering
from broker.engine.readiness import Readiness
from broker.engine.redeeming import Redeeming
from broker.engine.refreshing import Refreshing
from broker.engine.remembering import Remembering
from broker.engine.reporting import Reporting
from broker.engine.spending import Spending
from broker.engine.standing import Standings
from broker.engine.suitability import Suitability
from broker.engine.suspending import Suspending
from broker.engine.suspensions import Suspensions
from broker.envoy.options import GatewayMode
from broker.ports import Source, StateStore
from broker.sources.env import EnvOptions
from broker.sources.registry import TAIL, Context, build
from broker.sources.workload import Workloads
from broker.telemetry.events import Events
from broker.upstream.probe import HttpProbes
from broker.upstream.token_endpoint import HttpTokenEndpoint

_EXCHANGE_WITHIN: Final = 10.0
"""Seconds for the exchange of a workload's identity: not long, for it may be tried again at any time."""


class Engine:
    """The moving parts, wired. Building them reads the state store and nothing else."""

    def __init__(self, config: Config, *, clock: SystemClock, store: StateStore, events: Events) -> None:
        stored = store.load()
        self.standings = Standings(
            clock=clock, store=store, events=events, warn_within=config.expiry.warn_within, usage=stored.usage
        )
        self.suitability = Suitability(clock=clock, catalog=config.catalog)
        self.choosing = Choosing(
            clock=clock,
            store=store,
            catalog=config.catalog,
            policies=config.policies,
            standings=self.standings,
            suitability=self.suitability,
            configured_order=config.order,
            orders=stored.orders,
            pins=stored.pins,
            places=config.places,
        )
        identities = Workloads(
            config.workloads, catalog=config.catalog, clock=clock, endpoint=HttpTokenEndpoint(within=_EXCHANGE_WITHIN)
        )
        sources, tail = _sources(config, clock)
        if config.workloads:
            sources = (identities, *sources)
        self.ingesting = Ingesting(
            sources,
            tail=tail,
            clock=clock,
            store=store,
            events=events,
            standings=self.standings,
            stale_budget=config.expiry.stale_budget,
            versions=stored.versions,
        )
        stores = agent_stores(config, clock)
        followed = stores if any(spec.kind == "profile_store" for spec in config.sources) else None
        self.ordering = Ordering(choosing=self.choosing, ingesting=self.ingesting, standings=self.standings, stores=followed)
        self.mirroring = Mirroring(clock=clock, standings=self.standings, mirrors=mirrors(config, clock))
        self.remembering = Remembering(clock=clock, standings=self.standings, stores=stores, catalog=config.catalog)
        self.logins = login_places(config, stores, clock)
        redeeming = Redeeming(clock=clock, stores=self.logins, endpoint=HttpTokenEndpoint(), rules=config.rules)
        self.refreshing = Refreshing(
            clock=clock,
            events=events,
            standings=self.standings,
            redeeming=redeeming,
            reread=self.ingesting.look_again,
            chance=random.random,
            identities=identities,
        )
        probes = HttpProbes(config.catalog, allowed=config.probe)
        self.confirming = Confirming(clock=clock, events=events, standings=self.standings, probes=probes)
        self.reporting = Reporting(
            clock=clock,
            policies=config.policies,
            standings=self.standings,
            suitability=self.suitability,
            refreshing=self.refreshing,
            confirming=self.confirming,
            cooldowns=config.cooldowns,
            chance=random.random,
        )
        self.suspensions = Suspensions(stored.suspensions)
        self.leasing = Leasing(
            clock=clock,
            store=store,
            events=events,
            policies=config.policies,
            choosing=self.choosing,
            standings=self.standings,
            reporting=self.reporting,
            options=config.leases,
            deliveries=_deliveries(config),
            suspensions=self.suspensions,
            leases=stored.leases,
        )
        self.suspending = Suspending(
            clock=clock,
            store=store,
            events=events,
            policies=config.policies,
            leasing=self.leasing,
            suspensions=self.suspensions,
        )
        self.spending = Spending(
            clock=clock,
            events=events,
            policies=config.policies,
            standings=self.standings,
            leasing=self.leasing,
            refreshing=self.refreshing,
            reporting=self.reporting,
        )
        self.expiring = Expiring(clock=clock, store=store, events=events, leasing=self.leasing, standings=self.standings)
        self.readiness = Readiness(
            catalog=config.catalog,
            policies=config.policies,
            standings=self.standings,
            ingesting=self.ingesting,
            suspensions=self.suspensions,
            required=config.required,
        )


def _deliveries(config: Config) -> frozenset[Delivery]:
    """A token is worth something only where there is a gateway that knows it."""
    return frozenset({Delivery.RAW} if config.gateway.mode is GatewayMode.OFF else Delivery)


def _sources(config: Config, clock: SystemClock) -> tuple[Sequence[Source], frozenset[str]]:
    stores = agent_stores(config, clock)
    agents = dict.fromkeys((MAIN, *config.policies.agents))
    context = Context(
        home=config.home,
        rules=config.rules,
        clock=clock,
        stores={agent: stores.of(agent) for agent in agents},
        env=EnvOptions(config.env, config.shell_env.timeout if config.shell_env.enabled else None),
    )
    built = [(spec.kind, build(spec.kind, spec.options, context)) for spec in config.sources]
    return [source for _, source in built], frozenset(source.name for kind, source in built if kind in TAIL)
