"""Where a WebSocket may be opened, through a real Envoy: on the paths that are listed for one, and on no other."""

from collections.abc import Iterator

import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import DOTENV, OPENAI_KEY, Gateway, Told
from tests.gateway.test_bad_input import raw
from tests.gateway.test_suspension import FIRST, LAST, Stream, streaming
from tests.gateway.websocket import WebSocket
from tests.tiers import program

BIDI = "/google/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
KEYS = f"{DOTENV}GEMINI_API_KEY=AIza{'0123456789' * 3}\nACME_API_KEY=acme-{'0123456789' * 4}\n"
ACME = {
    "env": {"ACME_API_KEY": "api_key"},
    "requests": ["* /**"],
    "websockets": ["/live", "/rooms/{room}", "!/rooms/x:*"],
}


@pytest.fixture(scope="module")
def shared_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """With a provider of one's own that lets everything pass, and WebSockets on three paths."""
    url = shared_vendor.url
    providers = {"google": {"base_url": url}, "acme": ACME | {"base_url": f"{url}/v1"}, "openai": {"base_url": f"{url}/v1"}}
    gateway = Gateway(shared_vendor, dotenv=KEYS, providers=providers, agents={"main": {"max_leases": 1000}})
    try:
        yield gateway.start()
    finally:
        gateway.close()


def bearer(gateway: Gateway, provider: str) -> str:
    return f"Bearer {gateway.lease(provider).secret.reveal()}"


def upgrade(gateway: Gateway, path: str, *lines: str) -> Told:
    """What is answered to an upgrade in these words."""
    provider = path.split("/")[1]
    host = f"127.0.0.1:{gateway.port}"
    key = ("sec-websocket-version: 13", "sec-websocket-key: MDEyMzQ1Njc4OTAxMjM0NQ==")
    head = (f"GET {path} HTTP/1.1", f"host: {host}", f"authorization: {bearer(gateway, provider)}", *key, *lines)
    return raw(gateway, ("\r\n".join(head) + "\r\n\r\n").encode())


@pytest.mark.parametrize(
    ("path", "received"),
    [
        ("/openai/v1/realtime?model=gpt", "/v1/realtime?model=gpt"),
        ("/openai/realtime?model=gpt", "/v1/realtime?model=gpt"),
        ("/openai/v1/v1/responses", "/v1/responses"),
        (BIDI, BIDI.removeprefix("/google")),
        ("/acme/live", "/v1/live"),
        ("/acme/v1/rooms/7", "/v1/rooms/7"),
    ],
)
def test_a_listed_websocket_is_opened(gateway: Gateway, vendor: Upstream, path: str, received: str) -> None:
    """C8: of vendors and of a provider of one's own, in every spelling of the path."""
    with WebSocket(gateway.port, path, authorization=bearer(gateway, path.split("/")[1])) as socket:
        if not path.endswith("responses"):
            assert socket.echo(b"hello") == b"hello"
    assert [one.path for one in vendor.received] == [received]


@pytest.mark.parametrize(
    ("path", "spelling"),
    [
        ("/openai/v1/models", ("connection: Upgrade", "upgrade: websocket")),
        ("/openai/files/f1/content", ("connection: keep-alive, Upgrade", "upgrade: WebSocket")),
        ("/openai/v1/responses/r1", ("connection: upgrade", "upgrade: WEBSOCKET")),
        ("/openai/v1/responses/r1/input_items", ("connection: Upgrade", "upgrade: websocket")),
        ("/google/v1beta/models", ("connection: Upgrade", "upgrade: websocket")),
        ("/acme/chat", ("connection: Upgrade", "upgrade: websocket")),
        ("/acme/live/more", ("connection: Upgrade", "upgrade: websocket")),
        ("/acme/rooms/x:admin", ("connection: Upgrade", "upgrade: websocket")),
        ("/acme/rooms/x%3Aadmin", ("connection: Upgrade", "upgrade: websocket")),
    ],
)
def test_any_other_websocket_is_refused(gateway: Gateway, vendor: Upstream, path: str, spelling: tuple[str, str]) -> None:
    """C8: with its own reason, in audit log and metrics too; the vendor hears nothing. The same path passes without it."""
    refused = len(gateway.events("refused"))
    told = upgrade(gateway, path, *spelling)
    provider = path.split("/")[1]
    assert (told.status, told.reason) == (403, "WEBSOCKET_REFUSED")
    assert f"providers.{provider}.websockets" in told.body.decode()
    assert told.headers["x-should-retry"] == "false"
    assert vendor.received == []
    gateway.wait_for(lambda: len(gateway.events("refused")) > refused)
    assert gateway.events("refused")[-1]["reason"] == "WEBSOCKET_REFUSED"
    assert 'reason="WEBSOCKET_REFUSED"' in gateway.scrape()
    assert gateway.ask("", path, method="GET", authorization=bearer(gateway, provider)).reason == ""
    assert len(vendor.received) == 1


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "websocket, h2c", "h2c, websocket", "connect-udp", "IRC/6.9"])
def test_no_other_protocol_is_switched_to(gateway: Gateway, vendor: Upstream, protocol: str) -> None:
    """C8: whatever the list says, and no such request reaches the vendor as an upgrade."""
    told = upgrade(gateway, "/acme/live", "connection: Upgrade", f"upgrade: {protocol}")
    assert told.status != 101
    assert [one for one in vendor.received if "upgrade" in one.headers] == []


def test_a_reload_opens_paths(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """C8: for the next request, with the same lease; a built-in list holds again once nothing replaces it."""
    base = {"base_url": f"{vendor.url}/v1"}
    gateway = make_gateway(providers={"openai": base | {"websockets": []}}).start()
    token = bearer(gateway, "openai")
    with pytest.raises(ConnectionError, match="403"):
        WebSocket(gateway.port, "/openai/realtime", authorization=token)
    gateway.configure({"gateway": {"mode": "child", "envoy": str(program("envoy"))}, "providers": {"openai": base}})
    done = gateway.run("reload")
    assert (done.returncode, done.stderr) == (0, "")
    with WebSocket(gateway.port, "/openai/realtime", authorization=token) as socket:
        assert socket.echo(b"hello") == b"hello"
    assert vendor.received[-1].secret() == OPENAI_KEY


@pytest.mark.parametrize("way", [("{openai}", "{anthropic}"), ("--agent", "main"), ("--provider", "openai")], ids=" ".join)
def test_an_operators_revocation_cuts_what_is_under_way(gateway: Gateway, vendor: Upstream, way: tuple[str, str]) -> None:
    """C8: leases by the beginning of their ids, of an agent, of a provider: WebSockets and streams with their tokens end."""
    leases = {provider: gateway.lease(provider) for provider in ("openai", "anthropic")}
    ids = {provider: lease.id[:20] for provider, lease in leases.items()}
    bearer = f"Bearer {leases['openai'].secret.reveal()}"
    with WebSocket(gateway.port, "/openai/v1/realtime", authorization=bearer) as socket, streaming(vendor):
        stream = Stream(gateway, leases["anthropic"].secret.reveal())
        assert (socket.echo(b"hello"), stream.read()) == (b"hello", FIRST)
        asked = [word.format(**ids) for word in way]
        commands = [asked] if asked[0].startswith("--") else [[one] for one in asked]
        for words in commands:
            assert gateway.run("lease", "revoke", *words).returncode == 0
        assert socket.closed()
        if asked[-1] != "openai":
            assert stream.rest() is None
    if asked[-1] == "openai":
        assert stream.rest() == LAST
    assert gateway.ask("", "/openai/v1/models", method="GET", authorization=bearer).reason == "LEASE_NOT_FOUND"
