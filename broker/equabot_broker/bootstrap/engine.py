"""The engine with the adapters that a configuration asks for."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from equabot_broker.bootstrap.sources import Sources, build_sources
from equabot_broker.bootstrap.stores import agent_stores, login_places, mirrors, secret_stores
from equabot_broker.config.model import Config
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.engine.wiring import Engine, EngineConfig, EnginePorts, PreparedConfig
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.ports import StateStore
from equabot_broker.telemetry.events import Events
from equabot_broker.upstream.probe import HttpProbes
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that could be in effect at once."""

    config: Config
    sources: Sources
    of_engine: PreparedConfig


class ConfiguredEngine:
    """Builds the adapters of a configuration, and the `engine` on them. Building reads the state store and nothing else.

    `blocked` is whether nothing may be granted now.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: SystemClock,
        store: StateStore,
        events: Events,
        blocked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clock = clock
        self._sources = build_sources(config, clock)
        self._probes = HttpProbes(config.catalog, allowed=config.probe)
        stores = agent_stores(config, clock)
        self.logins = login_places(config, stores, clock)
        ports = EnginePorts(
            clock=clock,
            store=store,
            events=events,
            profile_stores=stores,
            login_stores=self.logins,
            token_endpoint=HttpTokenEndpoint(),
            probes=self._probes,
            chance=random.random,
            blocked=blocked,
        )
        self.engine = Engine(ports, _engine_config(config, self._sources, clock))

    async def prepare(self, config: Config) -> Prepared:
        """Reads what is new in the sources of another configuration. Nothing is in effect before `apply`."""
        sources = build_sources(config, self._clock, self._sources)
        return Prepared(config, sources, await self.engine.prepare(_engine_config(config, sources, self._clock)))

    def discard(self, prepared: Prepared) -> None:
        """Ends what `prepare` began, where the configuration is not applied."""
        self.engine.discard(prepared.of_engine)

    def apply(self, prepared: Prepared) -> int:
        """The configuration is in effect when this returns, as `Engine.apply` says. Returns how many leases it has ended."""
        config, self._sources = prepared.config, prepared.sources
        self.logins.add(secret_stores(config, self._clock, lacking=self.logins.lacks))
        self._probes.apply(config.catalog, allowed=config.probe)
        return self.engine.apply(prepared.of_engine)


def _engine_config(config: Config, sources: Sources, clock: SystemClock) -> EngineConfig:
    return EngineConfig(
        catalog=config.catalog,
        policies=config.policies,
        rules=config.rules,
        sources=sources.all,
        tail=sources.tail,
        identities=sources.identities,
        stale_budget=config.expiry.stale_budget,
        warn_within=config.expiry.warn_within,
        leases=config.leases,
        deliveries=_deliveries(config),
        cooldowns=config.cooldowns,
        order=config.order,
        required=config.required,
        mirrors=mirrors(config, clock),
        orders_in_stores=any(spec.kind == "profile_store" for spec in config.sources),
        places=config.places,
    )


def _deliveries(config: Config) -> frozenset[Delivery]:
    """A token is worth something only where there is a gateway that knows it."""
    return frozenset({Delivery.RAW} if config.gateway.mode is GatewayMode.OFF else Delivery)
