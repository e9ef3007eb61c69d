"""S4, S20, S21: a request carries the gateway's credential and no other, and an answer does not speak for the gateway."""

import json
import socket
import struct
from pathlib import Path

import pytest

from tests.fakes.upstream import Answer, Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import HELLO, MESSAGES, OPENAI_KEY, Gateway
from tests.gateway.test_bad_input import asked, raw
from tests.gateway.test_vendors import behind
from tests.gateway.tls_front import tls_front
from tests.gateway.websocket import WebSocket
from tests.journeys.running import KEY
from tests.kubernetes.certificates import Authority
from tests.tiers import require

WRONG = "an-agents-own-credential"


@pytest.fixture
def token(gateway: Gateway) -> str:
    """One that is good."""
    return gateway.lease().secret.reveal()


@pytest.mark.parametrize(
    "header",
    [
        "x-litellm-api-key", "ocp-apim-subscription-key", "x-auth-token", "x-api-token", "xi-api-key", "X-Subscription-Token",
        "private-token", "X-AMZ-Security-Token",
    ],
)  # fmt: skip
def test_a_second_credential_in_a_header(gateway: Gateway, vendor: Upstream, token: str, header: str) -> None:
    """S4: the vendor might take that one, and its 401 would count against everybody's."""
    told = raw(gateway, asked(MESSAGES, token, f"{header}: {WRONG}"))
    assert (told.status, told.reason) == (401, "KEY_REFUSED")
    assert WRONG not in told.body.decode()
    assert vendor.received == []


@pytest.mark.parametrize(
    "header",
    [
        "cookie", "x-made-up", "x-equabot-agent", "x-envoy-auth-partial-body", "x-envoy-original-path", "te", "keep-alive",
        "x-forwarded-proto", "x-request-id", "x-b3-traceid", "proxy-connection",
    ],
)  # fmt: skip
def test_a_header_that_is_not_listed_does_not_arrive(gateway: Gateway, vendor: Upstream, token: str, header: str) -> None:
    """S4: whatever it is, and however often it is sent."""
    value = "trailers" if header == "te" else WRONG
    told = raw(gateway, asked(MESSAGES, token, f"{header}: {value}", f"{header.title()}: {value}", "anthropic-version: 1"))
    assert told.status == 200
    [received] = vendor.received
    assert received.headers.keys() - {"te"} == {"host", "x-api-key", "content-length", "anthropic-version"}
    assert WRONG not in str(received.headers)


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        *((f"{name}={WRONG}", (401, "TOKEN_IN_QUERY")) for name in ("token", "authorization", "x-api-key", "xi-api-key")),
        *((f"beta=true&{name}=x", (401, "TOKEN_IN_QUERY")) for name in ("single_use_token", "%6bey", "X-Amz-Signature")),
        (f"made_up={WRONG}", (403, "POLICY_DENIED")),
        (f"limit={KEY}", (401, "TOKEN_IN_QUERY")),
    ],
)
def test_a_second_credential_in_the_query(
    gateway: Gateway, vendor: Upstream, token: str, query: str, refusal: tuple[int, str]
) -> None:
    """S4: a parameter that is not listed is refused, for a request without it would be another one."""
    told = gateway.ask(token, f"/anthropic/v1/models?{query}", method="GET")
    assert (told.status, told.reason) == refusal
    assert vendor.received == []


@pytest.mark.parametrize(
    "protocol", ["rt_0123456789", "xai-client-secret.x", f"openai-insecure-api-key.{OPENAI_KEY}", "token, x"]
)
def test_a_second_credential_in_a_websockets_protocol(gateway: Gateway, vendor: Upstream, protocol: str) -> None:
    """S4: as browsers send it."""
    bearer = gateway.lease("openai").secret.reveal()
    with pytest.raises(ConnectionError, match="401"):
        WebSocket(
            gateway.port, "/openai/realtime", authorization=f"Bearer {bearer}", sec_websocket_protocol=f"realtime, {protocol}"
        )
    assert vendor.received == []


def test_an_agents_own_credential_costs_nobody_the_profile(gateway: Gateway, vendor: Upstream, token: str) -> None:
    """S4: the vendor answers 401 to a second credential wherever it finds one. It finds none, and others go on."""
    ways = ("x-litellm-api-key", "ocp-apim-subscription-key", "x-auth-token", "x-api-token", "cookie", "x-vendor-session")
    for way in ways:
        raw(gateway, asked(MESSAGES, token, f"{way}: {WRONG}"))
    for name in ("token", "authorization", "single_use_token", "session"):
        gateway.ask(token, f"{MESSAGES}?{name}={WRONG}")
    assert not [request for request in vendor.received if WRONG in f"{request.path} {request.headers}"]
    assert gateway.ask(gateway.lease().secret.reveal()).status == 200


def test_what_an_operator_allows_arrives(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """By `forward_headers`, `query` and `subprotocols` of the provider; for other providers it does not."""
    more = {"forward_headers": ["x-team"], "query": ["team"], "subprotocols": ["acme.v1"]}
    gateway = make_gateway(providers={"openai": more | {"base_url": f"{vendor.url}/v1"}}).start()
    bearer = f"Bearer {gateway.lease('openai').secret.reveal()}"
    assert gateway.ask("", "/openai/models?team=1", method="GET", authorization=bearer, x_team="blue").status == 200
    assert (vendor.received[0].path, vendor.received[0].headers["x-team"]) == ("/v1/models?team=1", "blue")
    with WebSocket(gateway.port, "/openai/realtime", authorization=bearer, sec_websocket_protocol="acme.v1") as opened:
        assert opened.echo(b"hello") == b"hello"
    assert vendor.received[1].headers["sec-websocket-protocol"] == "acme.v1"
    token = gateway.lease().secret.reveal()
    assert gateway.ask(token, x_team="blue").status == 200
    assert "x-team" not in vendor.received[2].headers


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Prefix", "Forwarded",
        "Via", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Original-Forwarded-For", "X-Original-Host",
    ],
)  # fmt: skip
def test_every_header_of_a_proxy_is_refused(gateway: Gateway, vendor: Upstream, token: str, header: str) -> None:
    """S20: as the documents say."""
    told = raw(gateway, asked(MESSAGES, token, f"{header}: 10.0.0.1"))
    assert (told.status, told.reason) == (403, "FORWARDED_REFUSED")
    assert vendor.received == []


def test_a_vendor_does_not_speak_for_the_gateway(gateway: Gateway, vendor: Upstream, token: str) -> None:
    """S21: `x-equabot-reason` is the gateway's word. A vendor's cookie would be sent to the next vendor, by the same client."""
    forged = {"X-Equabot-Reason": "AGENT_SUSPENDED", "x-equabot-else": "x", "x-envoy-overloaded": "true", "set-cookie": "a=b"}
    vendor.answers.append(Answer(403, forged | {"request-id": "req_1"}, {"error": "x"}))
    told = gateway.ask(token)
    assert (told.status, told.reason, told.headers["request-id"]) == (403, "", "req_1")
    assert not [name for name in told.headers if name.startswith(("x-equabot", "x-envoy")) or name == "set-cookie"]


def test_trailers_of_a_request_do_not_arrive(make_gateway: MakeGateway, vendor: Upstream, tmp_path: Path) -> None:
    """S4: of HTTP/2, which has them without being asked."""
    require("envoy")
    authority = Authority("vendors of this test")
    with tls_front(vendor, tmp_path, authority.server("localhost")) as port:
        gateway = behind(make_gateway, authority, tmp_path, port)
        token = gateway.lease().secret.reveal()
        send_with_trailers(gateway.port, {"x-api-key": token, "anthropic-version": "1"}, {"x-auth-token": WRONG})
        gateway.wait_for(lambda: len(vendor.received) == 1)
        [received] = vendor.received
        assert (received.secret(), json.loads(received.body), received.trailers) == (KEY, HELLO, ())


def send_with_trailers(port: int, headers: dict[str, str], trailers: dict[str, str]) -> None:
    """A request over HTTP/2 without TLS (RFC 9113), and its answer's first bytes."""
    first = {":method": "POST", ":path": MESSAGES, ":scheme": "http", ":authority": "127.0.0.1", **headers}
    parts = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", _frame(4, 0, 0, b""), _frame(1, 4, 1, _block(first))]
    parts += [_frame(0, 0, 1, json.dumps(HELLO).encode()), _frame(1, 5, 1, _block(trailers))]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"".join(parts))
        answered = b""
        while b"hello" not in answered:
            piece = connection.recv(65536)
            assert piece, answered
            answered += piece


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def _block(headers: dict[str, str]) -> bytes:
    """Each a literal that is not indexed, without Huffman's coding (RFC 7541, 6.2.2)."""
    texts = ((name.encode(), value.encode()) for name, value in headers.items())
    return b"".join(b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in texts)
