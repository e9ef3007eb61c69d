"""Health, asked without the package for it, of a server that has it from there."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from equabot_client import errors, health

STATUSES: Final = {
    "": health_pb2.HealthCheckResponse.SERVING,
    "provider/openai": health_pb2.HealthCheckResponse.NOT_SERVING,
    "profile/anthropic:claude-cli": health_pb2.HealthCheckResponse.SERVING,
}


@pytest.fixture(params=["port", "socket"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of the official health package."""
    servicer = HealthServicer()
    for service, status in STATUSES.items():
        servicer.set(service, status)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    with tempfile.TemporaryDirectory(prefix="eqh-") as directory:
        socket = Path(directory) / "broker.sock"
        port = server.add_insecure_port(f"unix:{socket}" if request.param == "socket" else "127.0.0.1:0")
        server.start()
        yield str(socket) if request.param == "socket" else f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_what_serves_what_does_not_and_what_is_unknown(address: str) -> None:
    """True, False and None."""
    assert health.check(address=address) is True
    assert health.check("profile/anthropic:claude-cli", address=address) is True
    assert health.check("provider/openai", address=address) is False
    assert health.check("provider/nobody", address=address) is None


def test_nobody_there_is_an_error_that_says_where() -> None:
    """Not "unhealthy": whoever asks has to know the difference."""
    with pytest.raises(errors.BrokerUnavailable, match=r"127\.0\.0\.1:1:"):
        health.check(address="127.0.0.1:1")


def test_what_is_no_address_is_refused_before_anybody_is_asked() -> None:
    """A host without a port."""
    with pytest.raises(ValueError, match="localhost"):
        health.check(address="localhost")
