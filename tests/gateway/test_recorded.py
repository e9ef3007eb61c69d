"""What goes through the gateway, and what it refuses, as the audit log of a real broker has it."""

import http.client
import json
import socket
from collections import Counter
from contextlib import ExitStack

import grpc
import psutil
import pytest

from equabot.broker.v1 import broker_pb2
from equabot.broker.v1.broker_pb2_grpc import BrokerStub
from tests.fakes.upstream import Answer, Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import HELLO, MESSAGES, Gateway

UNREAD = 60
FLOOD = 2_000
LARGE = b"x" * (8 << 20)


def unread(gateway: Gateway, token: str) -> socket.socket:
    """A request whose answer the agent does not read."""
    body = json.dumps(HELLO)
    head = f"POST {MESSAGES} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {token}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=60)
    connection.sendall((head + body).encode())
    return connection


def summed(gateway: Gateway, kind: str) -> Counter[tuple[str, str]]:
    """How many refusals of the kind the audit log tells of, one by one or in sums, by agent and reason."""
    found: Counter[tuple[str, str]] = Counter()
    for record in gateway.events(kind):
        found[record.get("agent", ""), record["reason"]] += 1
    for record in gateway.events("summed"):
        if record["of"] == kind:
            found[record.get("agent", ""), record["reason"]] += record["count"]
    return found


def test_requests_are_recorded_although_the_gateway_is_killed(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S8: each before its key leaves. Answers that no agent reads, and an Envoy that dies with them, hide no use; a metric says
    how many have no outcome."""
    gateway = make_gateway(audit={"fail_closed": True}).start()
    token = gateway.lease().secret.reveal()
    vendor.answers = [Answer(headers={"content-type": "application/octet-stream"}, body=LARGE) for _ in range(UNREAD)]
    with ExitStack() as connections:
        for _ in range(UNREAD):
            connections.enter_context(unread(gateway, token))
        gateway.wait_for(lambda: len(vendor.received) == UNREAD)
        [envoy] = [child for child in psutil.Process(gateway.pid).children() if child.name() == "envoy"]
        envoy.kill()
        gateway.wait_for(lambda: "the gateway has ended (-9)" in gateway.log())
    authorized = gateway.events("authorized")
    assert len({record["request"] for record in authorized}) == len(authorized) == UNREAD
    assert {(record["agent"], record["profile"], record["route"]) for record in authorized} == {
        ("main", "anthropic:dotenv", "/v1/messages")
    }
    assert gateway.events("used") == []
    assert f'equabot_gateway_requests_open{{provider="anthropic"}} {UNREAD}.0' in gateway.scrape()


def test_a_use_is_a_pair(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S8: authorized, then used, with one name for the request; none is open any more."""
    gateway = make_gateway().start()
    token = gateway.lease().secret.reveal()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    for _ in range(3):  # on one connection, each is a use of its own
        connection.request("GET", "/anthropic/v1/models", headers={"x-api-key": token})
        assert connection.getresponse().read()
    connection.close()
    gateway.wait_answered(3)
    records = [record for record in map(json.loads, gateway.audit().splitlines()) if "request" in record]
    kinds = [(record["kind"], record["request"]) for record in records]
    authorized = [request for kind, request in kinds if kind == "authorized"]
    assert len(authorized) == 3
    assert sorted(authorized) == sorted(request for kind, request in kinds if kind == "used")
    assert all(kinds.index(("authorized", request)) < kinds.index(("used", request)) for request in authorized)
    assert 'equabot_gateway_requests_open{provider="anthropic"} 0.0' in gateway.scrape()


def test_a_flood_of_refusals_is_a_few_records_and_the_right_sum(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """S8: of requests without a token, and of acquires beyond an agent's rate. Metrics have each; the log is short as well."""
    gateway = make_gateway(agents={"main": {"rate": "1/h", "burst": 1}}).start()
    gateway.lease()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    for _ in range(FLOOD):
        connection.request("GET", "/anthropic/v1/models")
        connection.getresponse().read()
    connection.close()
    with grpc.insecure_channel(f"unix:{gateway.socket()}") as channel:
        acquire = BrokerStub(channel).AcquireLease
        for _ in range(FLOOD):
            with pytest.raises(grpc.RpcError):
                acquire(broker_pb2.AcquireLeaseRequest(provider="anthropic"))
    scraped = gateway.scrape()
    assert f'equabot_gateway_refusals_total{{provider="anthropic",reason="TOKEN_MISSING"}} {FLOOD}.0' in scraped
    assert f'equabot_leases_denied_total{{reason="RATE_LIMITED"}} {FLOOD}.0' in scraped
    assert gateway.stop() == 0
    assert summed(gateway, "refused") == {("", "TOKEN_MISSING"): FLOOD}
    assert summed(gateway, "denied") == {("main", "RATE_LIMITED"): FLOOD}
    assert len(gateway.audit().splitlines()) < 60
    assert len(gateway.log().splitlines()) < 100
    assert vendor.received == []
