"""The servers: what listens where, and in which order it stops."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from equabot_broker.bootstrap.callers import remote_listeners
from equabot_broker.bootstrap.subscriptions import subscribe
from equabot_broker.config.model import Config
from equabot_broker.domain.callers import Callers
from equabot_broker.domain.provider import Catalog
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.engine.wiring import Engine
from equabot_broker.envoy.bootstrap_config import gateway_url
from equabot_broker.envoy.options import GatewayMode
from equabot_broker.identity.agent_socket import AgentSocket, SocketClaim, plan
from equabot_broker.identity.client_certificate import ClientCertificates
from equabot_broker.identity.service_account import ServiceAccounts
from equabot_broker.ports import Clock, Configuration, StateStore
from equabot_broker.providers.catalog import VENDOR_URLS
from equabot_broker.rpc.admin import AdminServicer
from equabot_broker.rpc.calls import Service
from equabot_broker.rpc.convert import LeaseMessages
from equabot_broker.rpc.remote import AuthenticationInterceptor
from equabot_broker.rpc.server import (
    LeaseServer,
    Server,
    admin_server,
    agent_server,
    control_server,
    health_server,
    remote_server,
)
from equabot_broker.rpc.servicer import BrokerServicer
from equabot_broker.telemetry.audit_log import AuditLog
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.lease_events import AcquireAnswered

_GRACE: Final = 2.0
"""Seconds that calls under way have to end once the broker stops."""


@dataclass(frozen=True, slots=True)
class _Agent:
    """An agent's socket, the server behind it, and the service that it serves."""

    socket: AgentSocket
    server: LeaseServer
    service: Service


class Servers:
    """What listens. When the stack that it was started on unwinds it stops: agents and operator first, health last.

    Agents come and go with the configuration (`prepare`, `apply`); all other addresses stay as they are.
    """

    def __init__(
        self, config: Config, engine: Engine, claimed: SocketClaim, *, events: Events, clock: SystemClock, stack: AsyncExitStack
    ) -> None:
        self._config = config
        self._engine = engine
        self._claimed = claimed
        self._events = events
        self._clock = clock
        self._stack = stack
        self._messages = LeaseMessages(VENDOR_URLS, gateway_url=_gateway_url(config))
        self._numbers = count()
        self._agents: dict[str, _Agent] = {}
        self._services: dict[str, Service] = {}
        self._doors: list[AuthenticationInterceptor] = []
        self._identities: list[ClientCertificates | ServiceAccounts] = []
        self._remote: list[LeaseServer] = []
        self._operator: AdminServicer | None = None
        self._control: ControlServices | None = None

    async def start(self, *, store: StateStore, audit: AuditLog, configuration: Configuration) -> None:
        """Starts them. Raises CannotStart."""
        config, engine = self._config, self._engine
        health = health_server(config.listen.health, engine.readiness, behind=self._behind("h"))
        servers: list[Server] = [health]
        for socket in self._claimed.agents:
            self._enter(self._agent(socket, config))
        servers += (agent.server for agent in self._agents.values())
        listeners = [] if config.remote is None else await remote_listeners(config.remote, self._clock, self._stack)
        telling = [part for _, *parts in listeners for part in parts]
        self._identities = [identities for _, identities, _ in listeners]
        self._operator = AdminServicer(
            lease_admin=engine.lease_admin,
            resolver=engine.resolver,
            order_overrides=engine.order_overrides,
            registry=engine.registry,
            ingest=engine.ingest,
            readiness=engine.readiness,
            suspensions=engine.suspensions,
            suspension_control=engine.suspension_control,
            policies=config.policies,
            store=store,
            events=self._events,
            audit=audit,
            configuration=configuration,
            identity_fault=lambda: "; ".join(dict.fromkeys(part.fault for part in telling if part.fault)),
            started_at=self._clock.now(),
        )
        servers.append(admin_server(self._claimed.admin, self._operator, engine.readiness))
        for number, (address, identities, certificate) in enumerate(listeners):
            door = AuthenticationInterceptor(identities, clock=self._clock, events=self._events)
            self._doors.append(door)
            self._remote.append(
                remote_server(
                    address,
                    self._services,
                    engine.readiness,
                    door=door,
                    certificate=certificate,
                    leases=_most_leases(config),
                    behind=self._behind(f"t{number}"),
                )
            )
        servers += self._remote
        if config.gateway.mode is not GatewayMode.OFF:
            self._control = ControlServices(config, engine, events=self._events, clock=self._clock)
            servers.append(control_server(self._claimed.control, self._control.services))
        subscribe(
            engine,
            messages=self._messages,
            audit=audit,
            cutting=None if self._control is None else self._control.cutting,
            secrets=None if self._control is None else self._control.secrets,
        )
        self._claimed.set_modes()
        for server in servers:
            await server.start()
        self._stack.push_async_callback(health.stop, None)
        fixed = [server for server in servers[1:] if server not in [agent.server for agent in self._agents.values()]]
        self._stack.push_async_callback(self._stop, fixed)

    async def prepare(self, config: Config) -> list[_Agent]:
        """Listens for the agents that another configuration adds; until `apply` they are refused. Raises CannotStart."""
        listen = config.listen
        planned = plan(config.run_dir, config.policies.agents, admin=listen.admin, control=listen.control,
                       agent_paths=listen.agents)  # fmt: skip
        added = await asyncio.to_thread(self._claimed.add, planned, config.policies.agents.keys() - self._agents.keys())
        ready: list[_Agent] = []
        try:
            for socket in added:
                ready.append(self._agent(socket, config))
                self._claimed.keep(socket)
                await ready[-1].server.start()
        except BaseException:
            await self.discard(ready)
            raise
        return ready

    async def discard(self, agents: Iterable[_Agent]) -> None:
        """Stops listening for these agents."""
        async with asyncio.TaskGroup() as group:
            for agent in agents:
                self._claimed.forget(agent.socket.path)
                group.create_task(agent.server.stop(_GRACE))

    def apply(self, config: Config, added: Iterable[_Agent]) -> list[_Agent]:
        """The configuration is in effect. Returns the agents that are no longer configured, whose leases have ended: to be
        discarded."""
        self._config = config
        for agent in added:
            self._enter(agent)
        gone = [self._agents.pop(name) for name in self._agents.keys() - config.policies.agents.keys()]
        for agent in gone:
            del self._services[agent.socket.agent]
        for name, agent in self._agents.items():
            agent.server.allow(config.policies.of(name).max_leases)
        for server in self._remote:
            server.allow(_most_leases(config))
        for identities in self._identities:
            identities.apply(Callers() if config.remote is None else config.remote.callers)
        for door in self._doors:
            door.look_again()
        if self._operator is not None:
            self._operator.apply(config.policies)
        if self._control is not None:
            self._control.apply(config.catalog)
        return gone

    def _enter(self, agent: _Agent) -> None:
        self._agents[agent.socket.agent] = agent
        self._services[agent.socket.agent] = agent.service

    def _agent(self, socket: AgentSocket, config: Config) -> _Agent:
        engine = self._engine
        servicer = BrokerServicer(
            socket.agent,
            lease_service=engine.lease_service,
            resolver=engine.resolver,
            profile_statuses=engine.profile_statuses,
            ingest=engine.ingest,
            refresh_scheduler=engine.refresh_scheduler,
            suspensions=engine.suspensions,
            messages=self._messages,
            observe=lambda seconds: self._events.emit(AcquireAnswered(seconds=seconds)),
        )
        leases, behind = config.policies.of(socket.agent).max_leases, self._behind(f"a{next(self._numbers)}")
        return _Agent(socket, agent_server(socket.path, servicer, engine.readiness, leases=leases, behind=behind),
                      servicer.service())  # fmt: skip

    def _behind(self, name: str) -> Path:
        """For a private socket, in the directory that is the operator's."""
        return self._claimed.admin.with_name(name)

    async def _stop(self, fixed: Iterable[Server]) -> None:
        async with asyncio.TaskGroup() as group:
            for server in (*(agent.server for agent in self._agents.values()), *fixed):
                group.create_task(server.stop(_GRACE))


def _most_leases(config: Config) -> int:
    return sum(policy.max_leases for policy in config.policies.agents.values())


def _gateway_url(config: Config) -> str:
    """The gateway's address as agents get it; empty where no gateway runs."""
    listen = config.listen.gateway
    off = config.gateway.mode is GatewayMode.OFF
    return "" if off else gateway_url(config.gateway, host=listen.host, port=listen.port)


class ControlServices:
    """What Envoy asks. Its messages are loaded here, by a broker that has a gateway."""

    def __init__(self, config: Config, engine: Engine, *, events: Events, clock: Clock) -> None:
        from equabot_broker.envoy.access_log import AccessLogServicer  # noqa: PLC0415
        from equabot_broker.envoy.authorize import AuthorizationServicer  # noqa: PLC0415
        from equabot_broker.envoy.cutting import Cutting  # noqa: PLC0415
        from equabot_broker.envoy.processing import ProcessingServicer  # noqa: PLC0415
        from equabot_broker.envoy.scrubbing import ScrubbingServicer  # noqa: PLC0415
        from equabot_broker.envoy.secret_discovery import SecretServicer  # noqa: PLC0415

        names = [name] if (name := urlsplit(config.gateway.url).hostname) else []
        self._authorization = AuthorizationServicer(
            gateway_access=engine.gateway_access, ingest=engine.ingest, catalog=config.catalog, events=events, names=names
        )
        self.cutting = Cutting(
            catalog=config.catalog,
            suspensions=engine.suspensions,
            gateway_leases=engine.gateway_leases,
            registry=engine.registry,
            clock=clock,
        )
        self.secrets = SecretServicer(
            resolver=engine.resolver,
            registry=engine.registry,
            ingest=engine.ingest,
            suspensions=engine.suspensions,
            events=events,
        )
        self._scrubbing = ScrubbingServicer(config.catalog.providers.values()) if config.gateway.scrub else None
        self.services: list[Service] = [
            self._authorization.service(),
            AccessLogServicer(gateway_access=engine.gateway_access, events=events, clock=clock).service(),
            self.secrets.service(),
            ProcessingServicer(cutting=self.cutting, scrubbing=self._scrubbing).service(),
        ]

    def apply(self, catalog: Catalog) -> None:
        """Another configuration is in effect."""
        self._authorization.apply(catalog)
        self.cutting.apply(catalog)
        if self._scrubbing is not None:
            self._scrubbing.apply(catalog.providers.values())
