"""The servers: one per agent socket, one for the operator, health on TCP with nothing else beside it, and for agents of other
machines, where they are wanted, one for each way in which those show who they are."""

from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import ReflectionServicer

from broker.domain.errors import CannotStart, InvalidArgument
from broker.engine.readiness import Readiness
from broker.rpc.admin import AdminServicer
from broker.rpc.calls import Call, Service
from broker.rpc.health import HealthServicer
from broker.rpc.remote import Certificate, Door, credentials
from broker.rpc.servicer import BrokerServicer

_MOST_CALLS: Final = 2048
"""At once and on one socket, streams included: what an agent can make the broker hold is bounded."""

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # a second broker on the same port is an error, not half of the connections
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_concurrent_streams", _MOST_CALLS),
    ("grpc.server_handshake_timeout_ms", 10_000),  # who connects and says nothing is not waited for, as long as two minutes
    ("grpc.keepalive_time_ms", 60_000),  # a peer that is stopped loses its streams, and with them its leases
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),  # clients may ping as they like
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.bdp_probe", 0),  # everything is local: there is no bandwidth to find out about
    ("grpc.per_message_compression", 0),
    ("grpc.enable_channelz", 0),
)


class CannotListen(CannotStart):
    """An address is not to be had: which, and what to do."""


def agent_server(path: Path, servicer: BrokerServicer, readiness: Readiness) -> grpc.aio.Server:
    """The API of one agent on its Unix socket, with health and reflection. Listens once it is started. Raises CannotListen."""
    return _server(f"unix:{path}", [servicer.service(), HealthServicer(readiness).service()], reflected=True)


def admin_server(path: Path, servicer: AdminServicer, readiness: Readiness) -> grpc.aio.Server:
    """The operator's API on its Unix socket, with health and reflection. Raises CannotListen."""
    return _server(f"unix:{path}", [servicer.service(), HealthServicer(readiness).service()], reflected=True)


def control_server(path: Path, services: list[Service]) -> grpc.aio.Server:
    """What Envoy asks, on the Unix socket that is the gateway's own. Raises CannotListen."""
    return _server(f"unix:{path}", services, reflected=False)


def health_server(host: str, port: int, readiness: Readiness) -> grpc.aio.Server:
    """Health on TCP, and nothing else. Raises CannotListen."""
    return _server(_shown(host, port), [HealthServicer(readiness).service()], reflected=False)


def remote_server(
    address: tuple[str, int],
    servicers: Mapping[str, BrokerServicer],
    readiness: Readiness,
    *,
    door: Door,
    certificate: Certificate,
) -> grpc.aio.Server:
    """The API of every agent on TCP, with health and reflection, all of it behind the door. Raises CannotListen, and
    CannotStart for a certificate that is of no use."""
    brokers = {agent: servicer.service() for agent, servicer in servicers.items()}
    health = HealthServicer(readiness).service()
    names = [next(iter(brokers.values())).name, health.name]
    shared = (dict.fromkeys(brokers, service) for service in (health, *_reflection(names)))
    services = [door.service(agents) for agents in (brokers, *shared)]
    return _server(_shown(*address), services, reflected=False, secured=credentials(certificate))


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _server(
    address: str, services: list[Service], *, reflected: bool, secured: grpc.ServerCredentials | None = None
) -> grpc.aio.Server:
    if reflected:
        services = [*services, *_reflection([service.name for service in services])]
    server = grpc.aio.server(handlers=services, options=_OPTIONS, maximum_concurrent_rpcs=_MOST_CALLS)
    try:
        bound = server.add_secure_port(address, secured) if secured else server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise CannotListen(f"cannot listen on {address}: it is taken, forbidden or not of this machine; free it or set another")
    return server


def _reflection(names: Iterable[str]) -> list[Service]:
    """Reflection under both of its names; their messages are the same on the wire."""
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
