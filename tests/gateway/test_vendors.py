"""What stands between the gateway and a vendor: its certificate, its name, its protocol, its address."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.fakes.upstream import Answer, Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.name_server import NameServer
from tests.gateway.running import OPENAI_KEY, Gateway
from tests.gateway.tls_front import tls_front
from tests.gateway.websocket import WebSocket
from tests.journeys.running import KEY
from tests.kubernetes.certificates import Authority
from tests.tiers import require

CARES: Final = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"


@pytest.fixture
def authority() -> Authority:
    require("envoy")
    return Authority("vendors of this test")


def behind(make_gateway: MakeGateway, authority: Authority, folder: Path, port: int) -> Gateway:
    """A gateway to the vendor behind that port, which trusts the authority."""
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(authority.pem)
    at = f"https://localhost:{port}"
    providers = {"anthropic": {"base_url": at}, "openai": {"base_url": f"{at}/v1"}}
    return make_gateway(gateway={"ca_file": str(ca_file)}, providers=providers).start()


@pytest.mark.parametrize(("alpn", "protocol"), [(("h2", "http/1.1"), "HTTP/2"), (("http/1.1",), "HTTP/1.1")])
def test_the_protocol_that_the_vendor_has(
    make_gateway: MakeGateway, vendor: Upstream, authority: Authority, tmp_path: Path, *, alpn: tuple[str, ...], protocol: str
) -> None:
    """The best that both speak; the vendor is asked for by its name, and WebSockets go through whichever it is."""
    with tls_front(vendor, tmp_path, authority.server("localhost"), alpn=alpn) as port:
        gateway = behind(make_gateway, authority, tmp_path, port)
        assert gateway.ask(gateway.lease().secret.reveal()).status == 200
        [received] = vendor.received
        assert received.secret() == KEY
        seen = {name: received.headers[name] for name in ("x-seen-protocol", "x-seen-name", "host")}
        assert seen == {"x-seen-protocol": protocol, "x-seen-name": "localhost", "host": f"localhost:{port}"}
        bearer = gateway.lease("openai").secret.reveal()
        with WebSocket(gateway.port, "/openai/realtime", authorization=f"Bearer {bearer}") as socket:
            assert socket.echo(b"hello") == b"hello"
        assert vendor.received[-1].secret() == OPENAI_KEY


@pytest.mark.parametrize("wrong", ["name", "authority"])
def test_a_vendor_that_cannot_prove_who_it_is_gets_nothing(
    make_gateway: MakeGateway, vendor: Upstream, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    """Neither the key nor the request."""
    pair = authority.server("elsewhere.example") if wrong == "name" else Authority("another").server("localhost")
    with tls_front(vendor, tmp_path, pair) as port:
        gateway = behind(make_gateway, authority, tmp_path, port)
        told = gateway.ask(gateway.lease().secret.reveal())
        assert (told.status, told.reason) == (503, "UPSTREAM_UNREACHABLE")
        assert told.json()["error"]["type"] == "api_error"
        assert vendor.received == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "192.168.7.1", "169.254.169.254", "100.64.0.1", "168.63.129.16", "::1", "fd00::1", "fe80::1",
        "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::1", "2001:0:7f00:1::1", "::ffff:127.0.0.1", "::127.0.0.1",
    ],
)  # fmt: skip
def test_a_vendors_name_that_leads_to_a_private_address(vendor: Upstream, named: Gateway, address: str) -> None:
    """S26: it is not followed, also where the address only translates to a private one: that is not the vendor's."""
    with NameServer(address) as names, named.envoy(resolving(named, names.port)):
        told = named.ask(named.lease().secret.reveal())
        assert (told.status, told.reason) == (403, "PRIVATE_ADDRESS")
        assert told.json()["error"]["type"] == "permission_error"


@pytest.fixture(scope="module")
def named(shared_vendor: Upstream) -> Iterator[Gateway]:
    """With the vendor's own address."""
    gateway = Gateway(shared_vendor, mode="sidecar", providers={"anthropic": {}})
    try:
        yield gateway.start()
    finally:
        gateway.close()


def resolving(gateway: Gateway, port: int) -> Path:
    """The configuration that it wrote, asking another name server than this machine's."""
    resolver = {
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": CARES,
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": port}}],
        },
    }

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "dns_cache_config" in node:
                node["dns_cache_config"]["typed_dns_resolver_config"] = resolver
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    document = yaml.safe_load(gateway.envoy_config.read_text())
    walk(document)
    written = gateway.home / "envoy.yaml"
    written.write_text(yaml.safe_dump(document))
    return written


def test_a_vendor_that_is_not_there(make_gateway: MakeGateway) -> None:
    """Is said by the gateway."""
    gateway = make_gateway(providers={"anthropic": {"base_url": "http://127.0.0.1:1"}}).start()
    token = gateway.lease().secret.reveal()
    told = gateway.ask(token)
    assert (told.status, told.reason) == (503, "UPSTREAM_UNREACHABLE")


def test_a_vendor_that_says_nothing_for_too_long(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """As long as the configuration says; what it says then comes too late, and counts against the profile."""
    gateway = make_gateway(gateway={"idle_timeout": "1s"}).start()
    late = threading.Event()
    vendor.answers.append(Answer(chunks=[late, b"late"]))
    told = gateway.ask(gateway.lease().secret.reveal())
    late.set()
    assert (told.status, told.reason) == (504, "UPSTREAM_TIMEOUT")
    assert told.json()["error"]["type"] == "timeout_error"
    gateway.wait_for(lambda: [event["outcome"] for event in gateway.events("outcome")] == ["timeout"])
