"""The servers: what listens where, and in which order it stops."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from broker.bootstrap.callers import remote_listeners
from broker.bootstrap.engine import Engine
from broker.config.model import Config
from broker.engine.clock import SystemClock
from broker.envoy.bootstrap_config import gateway_url
from broker.envoy.options import GatewayMode
from broker.identity.agent_socket import Claim
from broker.ports import Clock, StateStore
from broker.providers.catalog import VENDOR_URLS
from broker.rpc.admin import AdminServicer
from broker.rpc.calls import Service
from broker.rpc.convert import LeaseMessages
from broker.rpc.remote import Door
from broker.rpc.server import Server, admin_server, agent_server, control_server, health_server, remote_server
from broker.rpc.servicer import BrokerServicer
from broker.telemetry.audit_log import AuditLog
from broker.telemetry.events import AcquireAnswered, Events

_GRACE: Final = 2.0
"""Seconds that calls under way have to end once the broker stops."""


async def start_servers(
    config: Config,
    engine: Engine,
    claimed: Claim,
    *,
    store: StateStore,
    events: Events,
    audit: AuditLog,
    clock: SystemClock,
    stack: AsyncExitStack,
) -> None:
    """Starts the servers. When the stack unwinds they stop: agents and operator first, health last."""
    messages = LeaseMessages(VENDOR_URLS, gateway_url=_gateway_url(config))
    engine.standings.listeners.append(messages.forget)

    def behind(name: str) -> Path:
        """For a private socket, in the directory that is the operator's."""
        return claimed.admin.with_name(name)

    health = health_server(config.listen.health, engine.readiness, behind=behind("h"))
    servers: list[Server] = [health]
    servicers: dict[str, BrokerServicer] = {}
    for number, socket in enumerate(claimed.agents):
        servicers[socket.agent] = servicer = BrokerServicer(
            socket.agent,
            leasing=engine.leasing,
            choosing=engine.choosing,
            ingesting=engine.ingesting,
            refreshing=engine.refreshing,
            suspensions=engine.suspensions,
            messages=messages,
            observe=lambda seconds: events.emit(AcquireAnswered(seconds=seconds)),
        )
        leases = config.policies.of(socket.agent).max_leases
        servers.append(agent_server(socket.path, servicer, engine.readiness, leases=leases, behind=behind(f"a{number}")))
    listeners = [] if config.remote is None else await remote_listeners(config.remote, clock, stack)
    telling = [part for _, *parts in listeners for part in parts]
    operator = AdminServicer(
        leasing=engine.leasing,
        choosing=engine.choosing,
        ordering=engine.ordering,
        standings=engine.standings,
        ingesting=engine.ingesting,
        readiness=engine.readiness,
        suspensions=engine.suspensions,
        suspending=engine.suspending,
        policies=config.policies,
        store=store,
        events=events,
        audit=audit,
        identity_fault=lambda: "; ".join(dict.fromkeys(part.fault for part in telling if part.fault)),
        started_at=clock.now(),
    )
    servers.append(admin_server(claimed.admin, operator, engine.readiness))
    leases = sum(config.policies.of(agent).max_leases for agent in servicers)
    for number, (address, identities, certificate) in enumerate(listeners):
        door = Door(identities, clock=clock, events=events)
        servers.append(
            remote_server(
                address,
                servicers,
                engine.readiness,
                door=door,
                certificate=certificate,
                leases=leases,
                behind=behind(f"t{number}"),
            )
        )
    if config.gateway.mode is not GatewayMode.OFF:
        servers.append(control_server(claimed.control, _control_services(config, engine, events=events, clock=clock)))
    claimed.settle()
    for server in servers:
        await server.start()
    stack.push_async_callback(health.stop, None)

    async def stop_others() -> None:
        async with asyncio.TaskGroup() as group:
            for server in servers[1:]:
                group.create_task(server.stop(_GRACE))

    stack.push_async_callback(stop_others)


def _gateway_url(config: Config) -> str:
    """The address that agents are told; empty where no gateway runs."""
    listen = config.listen.gateway
    off = config.gateway.mode is GatewayMode.OFF
    return "" if off else gateway_url(config.gateway, host=listen.host, port=listen.port)


def _control_services(config: Config, engine: Engine, *, events: Events, clock: Clock) -> list[Service]:
    """What Envoy asks. Its messages are loaded here, by a broker that has a gateway."""
    from broker.envoy.access_log import AccessLogServicer  # noqa: PLC0415
    from broker.envoy.authorize import AuthorizationServicer  # noqa: PLC0415
    from broker.envoy.cutting import Cutting  # noqa: PLC0415
    from broker.envoy.processing import ProcessingServicer  # noqa: PLC0415
    from broker.envoy.scrubbing import ScrubbingServicer  # noqa: PLC0415
    from broker.envoy.secret_discovery import SecretServicer  # noqa: PLC0415

    names = [name] if (name := urlsplit(config.gateway.url).hostname) else []
    return [
        AuthorizationServicer(
            spending=engine.spending, ingesting=engine.ingesting, catalog=config.catalog, events=events, names=names
        ).service(),
        AccessLogServicer(spending=engine.spending, events=events, clock=clock).service(),
        SecretServicer(
            choosing=engine.choosing,
            standings=engine.standings,
            ingesting=engine.ingesting,
            suspensions=engine.suspensions,
            events=events,
        ).service(),
        ProcessingServicer(
            cutting=Cutting(
                catalog=config.catalog,
                suspensions=engine.suspensions,
                leasing=engine.leasing,
                standings=engine.standings,
                clock=clock,
            ),
            scrubbing=ScrubbingServicer(config.catalog.providers.values()) if config.gateway.scrub else None,
        ).service(),
    ]
