"""The servers: one for each agent socket, one for the operator, one for health on TCP. For agents on other machines there is
one for each configured way to identify a caller."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import ReflectionServicer

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.engine.health import Readiness
from equabot_broker.rpc import limits
from equabot_broker.rpc.admin import AdminServicer
from equabot_broker.rpc.admission import Admission
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.rpc.health import HealthServicer
from equabot_broker.rpc.limits import Limits
from equabot_broker.rpc.listening import CannotListen, bound_at, bound_on, cannot_listen
from equabot_broker.rpc.relay import Relay, address_of
from equabot_broker.rpc.remote import AuthenticationInterceptor
from equabot_broker.rpc.servicer import BrokerServicer
from equabot_broker.rpc.tls import Certificate, ServerTls

__all__ = [
    "CannotListen", "Server", "admin_server", "agent_server", "control_server", "health_server", "remote_server",
]  # fmt: skip

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second broker on the same port is an error; otherwise it would get half of the connections
    ("grpc.keepalive_time_ms", 60_000),  # a suspended peer loses its streams, and so its leases
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients may send pings at any rate
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.bdp_probe", 0),  # all connections are local: there is no bandwidth to measure
    ("grpc.per_message_compression", 0),
    ("grpc.enable_channelz", 0),
)


class Server(Protocol):
    """A listener that can be started and stopped."""

    async def start(self) -> None:
        """Begins to answer."""

    async def stop(self, grace: float | None) -> None:
        """Refuses new calls, and ends active ones after `grace` seconds; None: at once."""


class LeaseServer(Server, Protocol):
    """A server of agents."""

    def allow(self, leases: int) -> None:
        """Sets the number of leases that its agents may have. The streams of one connection do not change."""


def agent_server(path: Path, servicer: BrokerServicer, readiness: Readiness, *, leases: int, behind: Path) -> LeaseServer:
    """The API of one agent with this number of leases, on its Unix socket, with health and reflection. `behind` is a path for
    a private socket. The server listens when it is started. Raises CannotListen."""
    bounds = limits.agent(leases)
    relay = Relay(bound_at(path), behind, metadata=bounds.metadata, strangers=limits.PROCESSES.table())
    return _relayed(relay, _reflected([servicer.service(), HealthServicer(readiness).service()]), bounds)


def admin_server(path: Path, servicer: AdminServicer, readiness: Readiness) -> Server:
    """The API of the operator on its Unix socket, with health and reflection. Raises CannotListen."""
    return _server(path, _reflected([servicer.service(), HealthServicer(readiness).service()]), limits.ADMIN)


def control_server(path: Path, services: list[Service]) -> Server:
    """The services for Envoy, on the gateway's control socket. Raises CannotListen."""
    return _server(path, services, limits.CONTROL)


def health_server(address: tuple[str, int], readiness: Readiness, *, behind: Path) -> Server:
    """Health on TCP, and nothing else. `behind` is a path for a private socket. Raises CannotListen."""
    relay = Relay(bound_on(*address), behind, metadata=limits.HEALTH.metadata, strangers=limits.PROBERS.table())
    return _relayed(relay, [HealthServicer(readiness).service()], limits.HEALTH)


def remote_server(
    address: tuple[str, int],
    brokers: Mapping[str, Service],
    readiness: Readiness,
    *,
    door: AuthenticationInterceptor,
    certificate: Certificate,
    leases: int,
    behind: Path,
) -> LeaseServer:
    """The API of all agents with this number of leases together, on TCP, with health and reflection, behind authentication.
    `brokers` may change at any time. `behind` is a path for a private socket. Raises CannotListen, and CannotStart for a
    certificate that cannot be used."""
    health = HealthServicer(readiness).service()
    names = [next(iter(brokers.values())).name, health.name]
    shared = (_Shared(brokers, service) for service in (health, *_reflection(names)))
    services = [door.service(agents) for agents in (brokers, *shared)]
    tls = ServerTls(certificate)
    bounds = limits.remote(leases)
    relay = Relay(
        bound_on(*address),
        behind,
        metadata=bounds.metadata,
        strangers=limits.STRANGERS.table(),
        known=limits.AGENTS.table(),
        tls=tls,
    )
    door.identified, door.refused, door.certificate_of = relay.identified, relay.refused, relay.certificate_of
    return _relayed(relay, services, bounds)


class _Shared(Mapping[str, Service]):
    """One service that dispatches to the present agents."""

    def __init__(self, agents: Mapping[str, object], service: Service) -> None:
        self._agents = agents
        self._service = service

    def __getitem__(self, agent: str) -> Service:
        if agent not in self._agents:
            raise KeyError(agent)
        return self._service

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)


class _Relayed:
    """A server with the relay in front of it."""

    def __init__(self, server: grpc.aio.Server, relay: Relay, admission: Admission) -> None:
        self._server = server
        self._relay = relay
        self._admission = admission

    def allow(self, leases: int) -> None:
        """Applies the admission to handlers of both kinds."""
        self._admission.allow(limits.agent(leases).leases)

    async def start(self) -> None:
        """Starts the server before the relay."""
        await self._server.start()
        await self._relay.start()

    async def stop(self, grace: float | None) -> None:
        """Stops the server first, so that its last answers are sent."""
        await self._server.stop(grace)
        await self._relay.stop()


def _relayed(relay: Relay, services: list[Service], bounds: Limits) -> _Relayed:
    admission = Admission(bounds, address_of=address_of)
    try:
        server = _bound(relay.path, services, bounds, admission)
    except CannotListen:
        relay.close()
        raise
    relay.path.chmod(0o600)
    return _Relayed(server, relay, admission)


def _reflected(services: list[Service]) -> list[Service]:
    return [*services, *_reflection([service.name for service in services])]


def _server(path: Path, services: list[Service], bounds: Limits) -> grpc.aio.Server:
    return _bound(path, services, bounds, Admission(bounds))


def _bound(path: Path, services: list[Service], bounds: Limits, admission: Admission) -> grpc.aio.Server:
    server = grpc.aio.server(
        handlers=[service.within(admission) for service in services], options=(*_OPTIONS, *bounds.options())
    )
    try:
        bound = server.add_insecure_port(f"unix:{path}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise cannot_listen(f"unix:{path}")
    return server


def _reflection(names: Iterable[str]) -> list[Service]:
    """Reflection under both of its names; the messages are the same on the wire."""
    descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
    served = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
    library = ReflectionServicer([*names, *served])

    async def answer(requests: AsyncIterator[Any], call: Call) -> None:
        async for request in requests:
            if request is None:
                raise InvalidArgument("the request is not a message of this method")
            for response in library.ServerReflectionInfo(iter([request]), call):
                await call.write(response)

    return [Service(descriptor, {"ServerReflectionInfo": answer}, name=name) for name in served]
