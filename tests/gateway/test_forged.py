"""What an agent may not do with what it sends: steer the gateway, or make an answer count against the profile that all use."""

import json
import socket
import threading

import pytest

from tests.fakes.upstream import Answer, Upstream, refused
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import MESSAGES, Gateway
from tests.gateway.test_bad_input import asked, raw


@pytest.fixture
def token(gateway: Gateway) -> str:
    """One that is good."""
    return gateway.lease().secret.reveal()


def test_no_header_makes_the_gateway_try_again(gateway: Gateway, vendor: Upstream, token: str) -> None:
    """What the vendor has seen it has done, and charged for."""
    vendor.answers = [refused(500), refused(500)]
    told = raw(gateway, asked(MESSAGES, token, "x-envoy-retry-on: 5xx,retriable-status-codes", "x-envoy-max-retries: 3"))
    assert (told.status, len(vendor.received)) == (500, 1)


@pytest.mark.parametrize(
    "header",
    [
        "x-envoy-upstream-rq-timeout-ms: 1",
        "x-envoy-upstream-rq-per-try-timeout-ms: 1",
        "x-envoy-upstream-stream-duration-ms: 1",
        "grpc-timeout: 1m",
    ],
)
def test_no_header_makes_the_vendor_late(gateway: Gateway, vendor: Upstream, token: str, header: str) -> None:
    """Late, it would be left alone for a minute by everybody."""
    go_on = threading.Event()
    vendor.answers = [Answer(chunks=[go_on, b"done"])]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(asked(MESSAGES, token, header))
        gateway.wait_for(lambda: len(vendor.received) == 1)
        assert gateway.ask(token).status == 200  # by then the millisecond is over
        go_on.set()
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("named", ["x-api-key", "authorization", "x-api-key , close"])
def test_a_websocket_does_not_lose_its_credential(gateway: Gateway, vendor: Upstream, token: str, named: str) -> None:
    """A header that `Connection` names is forgotten by the next server, whose answer would be taken for the end of the key."""
    upgrade = (f"connection: Upgrade, {named}", "upgrade: websocket", "sec-websocket-key: x")
    told = raw(gateway, asked("/anthropic/v1/messages", token, *upgrade))
    assert told.status in {401, 403}  # Envoy may have forgotten the token already
    assert vendor.received == []


def test_a_request_that_does_not_come_whole_says_nothing_of_the_vendor(make_gateway: MakeGateway) -> None:
    """It is the agent that is late; also where it wants to be told in the form of gRPC, which knows one status for all."""
    gateway = make_gateway(gateway={"idle_timeout": "1s"}).start()
    lease = gateway.lease()
    body = json.dumps({"model": "claude"}).encode()
    for kind, status in (("application/json", 408), ("application/grpc", 200)):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
            connection.sendall(asked(MESSAGES, lease.secret.reveal(), f"content-type: {kind}")[: -len(body)])
            told = connection.recv(4096)
            assert told.startswith(f"HTTP/1.1 {status}".encode())
            assert b"x-equabot-reason: INVALID_ARGUMENT" in told
    gateway.wait_answered(2)
    assert gateway.events("outcome") == []


def test_an_account_that_is_not_the_keys_costs_no_key(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """Vendors answer it with 401, as they answer a bad key; an SDK takes it from a variable that nobody may have thought of."""
    gateway = make_gateway().start()
    token = gateway.lease("openai").secret.reveal()
    vendor.answers = [refused(401)]
    assert gateway.ask(token, "/openai/responses", openai_organization="org-of-others").status == 401
    gateway.wait_answered(1)
    assert [event["outcome"] for event in gateway.events("outcome")] == ["auth"]
    assert gateway.ask(token, "/openai/responses").status == 200
    vendor.answers = [refused(401)]
    assert gateway.ask(token, "/openai/responses").status == 401
    gateway.wait_answered(3)
    assert gateway.ask(token, "/openai/responses").status == 503
