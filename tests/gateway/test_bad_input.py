"""What is not let through: each with its status, a reason and words in the vendor's form; the vendor hears of none of it."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.running import HELLO, MESSAGES, Gateway, Told
from tests.journeys.running import KEY

UNKNOWN = "eqb_" + "A" * 43
AGENTS = {
    "main": {},
    "narrow": {"providers": ["anthropic"], "requests": ["POST /v1/messages"]},
    "token-only": {"providers": ["*"], "deliveries": ["brokered"]},
}


@pytest.fixture(scope="module")
def shared_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """With agents of several kinds."""
    with ExitStack() as ending:
        gateway = Gateway(shared_vendor, agents=AGENTS)
        ending.callback(gateway.close)
        yield gateway.start()


@pytest.fixture
def token(gateway: Gateway) -> str:
    """One that is good."""
    return gateway.lease().secret.reveal()


@pytest.fixture(autouse=True)
def nothing_arrives(vendor: Upstream) -> Iterator[None]:
    """Whatever is asked here, the vendor is not."""
    yield
    assert vendor.received == []


def refused(told: Told, status: int, reason: str) -> None:
    """It was, so, in a body that Anthropic's package reads, with no key in it."""
    assert (told.status, told.reason) == (status, reason), told
    assert told.headers["content-type"] == "application/json"
    assert told.json()["type"] == "error"
    assert told.json()["error"].keys() >= {"type", "message"}
    assert KEY not in told.body.decode()


def raw(gateway: Gateway, request: bytes) -> Told:
    """What comes of exactly these bytes."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            headers = {}
            while line := stream.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            return Told(status, headers, stream.read(int(headers.get("content-length", "0"))))


def asked(target: str, token: str, *more: str, host: str = "127.0.0.1", version: str = "1.1") -> bytes:
    """A request for the target as it stands there."""
    body = json.dumps(HELLO)
    head = [f"POST {target} HTTP/{version}", f"host: {host}", f"x-api-key: {token}", f"content-length: {len(body)}", *more]
    return "\r\n".join([*head, "", body]).encode()


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param({}, "TOKEN_MISSING", id="nothing"),
        pytest.param({"x_api_key": ""}, "TOKEN_MISSING", id="an empty header"),
        pytest.param({"x_api_key": "equabot"}, "KEY_REFUSED", id="a placeholder"),
        pytest.param({"x_api_key": KEY}, "KEY_REFUSED", id="the real key"),
        pytest.param({"authorization": f"Bearer {KEY}"}, "KEY_REFUSED", id="the real key as a bearer"),
        pytest.param({"authorization": "Basic ZXFiXzpBQUE="}, "KEY_REFUSED", id="Basic"),
        pytest.param({"x_api_key": "eqb_short"}, "LEASE_NOT_FOUND", id="cut off"),
        pytest.param({"x_api_key": UNKNOWN + "A"}, "LEASE_NOT_FOUND", id="too long"),
        pytest.param({"x_api_key": UNKNOWN}, "LEASE_NOT_FOUND", id="of nobody"),
        pytest.param({"x_api_key": "eqb_" + "ä" * 43}, "LEASE_NOT_FOUND", id="not ASCII"),
        pytest.param({"x_api_key": UNKNOWN, "authorization": f"Bearer {KEY}"}, "TWO_CREDENTIALS", id="token and key"),
        pytest.param({"x_api_key": UNKNOWN, "api_key": UNKNOWN[:-1] + "E"}, "TWO_CREDENTIALS", id="two tokens"),
    ],
)
def test_a_token_that_is_none(gateway: Gateway, headers: dict[str, str], reason: str) -> None:
    """401, and words that say what to send."""
    encoded = {name: value.encode().decode("latin-1") for name, value in headers.items()}
    told = gateway.ask("", **encoded)
    refused(told, 401, reason)
    assert told.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        pytest.param("good", "good", "LEASE_NOT_FOUND", id="twice the same"),
        pytest.param("good", KEY, "LEASE_NOT_FOUND", id="token and key"),
        pytest.param(KEY, "good", "KEY_REFUSED", id="key and token"),
    ],
)
def test_one_header_twice(gateway: Gateway, token: str, one: str, other: str, reason: str) -> None:
    """Of the two, which would count? Neither does."""
    values = [token if value == "good" else value for value in (one, other)]
    refused(raw(gateway, asked(MESSAGES, values[0], f"x-api-key: {values[1]}")), 401, reason)


def test_the_key_that_an_agent_sends_is_in_no_log(gateway: Gateway) -> None:
    """Wherever it has it from."""
    for header in ("x_api_key", "authorization", "x_goog_api_key", "api_key", "proxy_authorization"):
        refused(gateway.ask("", **{header: KEY}), 401, "KEY_REFUSED")
    refused(gateway.ask("", f"{MESSAGES}?key={KEY}"), 401, "TOKEN_IN_QUERY")
    gateway.wait_for(lambda: "TOKEN_IN_QUERY" in {event["reason"] for event in gateway.events("refused")})
    assert [name for name, text in gateway.written().items() if KEY.encode() in text] == []


def test_a_token_in_the_query(gateway: Gateway, token: str) -> None:
    """Addresses are logged everywhere."""
    refused(gateway.ask("", f"{MESSAGES}?key={token}"), 401, "TOKEN_IN_QUERY")
    refused(gateway.ask(token, f"{MESSAGES}?beta=true&api_key=x"), 401, "TOKEN_IN_QUERY")


def test_a_token_for_another_provider(gateway: Gateway, token: str) -> None:
    """It is good for one."""
    told = gateway.ask(token, "/openai/models", method="GET")
    assert (told.status, told.reason) == (403, "POLICY_DENIED")
    assert "anthropic" in told.json()["error"]["message"]


def test_a_token_that_was_revoked_or_has_expired(gateway: Gateway) -> None:
    """Over is over."""
    lease = gateway.lease()
    with gateway.connect() as broker:
        broker.revoke(lease)
    refused(gateway.ask(lease.secret.reveal()), 401, "LEASE_NOT_FOUND")
    short = gateway.lease(ttl=timedelta(milliseconds=1)).secret.reveal()
    gateway.wait_for(lambda: gateway.ask(short, "/anthropic/v1/none", method="GET").status == 401)
    assert gateway.ask(short).reason in {"LEASE_EXPIRED", "LEASE_NOT_FOUND"}


def test_the_policy_of_the_agent_that_the_token_was_made_for(gateway: Gateway) -> None:
    """Whoever sends it."""
    token = gateway.lease(agent="narrow").secret.reveal()
    refused(gateway.ask(token, "/anthropic/v1/models", method="GET"), 403, "POLICY_DENIED")
    refused(gateway.ask(token, "/anthropic/v1/messages/batches"), 403, "POLICY_DENIED")


def test_what_is_the_vendors_but_no_models(gateway: Gateway, token: str) -> None:
    """An agent is not the organization's administrator."""
    refused(gateway.ask(token, "/anthropic/v1/organizations/api_keys", method="GET"), 403, "POLICY_DENIED")


@pytest.mark.parametrize(
    "target",
    [
        "/anthropic/v1/../v1/organizations/api_keys",
        "/anthropic/./v1/messages",
        "/anthropic/v1/%2e%2e/messages",
        "/anthropic/v1/.%2E/messages",
        "/anthropic/v1%2f%2fmessages",
        "/anthropic/v1%5cmessages",
        "/anthropic/v1%252fmessages",
        "/anthropic//v1/messages",
        "/anthropic/v1/messages//",
        "/anthropic/v1\\messages",
        "/anthropic/v1/;/messages",
        "/anthropic/v1/messages;x=../../organizations",
        "/anthropic/v1/%6dessages",
        "/anthropic/v1/messages%00",
        "/anthropic/v1/messages%0d%0ax-api-key:%20x",
        "/anthropic/v1/m\u00e9ssages",
        "/anthropic/" + "a" * 9000,
    ],
)
def test_a_path_that_could_be_read_in_two_ways(gateway: Gateway, token: str, target: str) -> None:
    """A rule for the one would be worth nothing for the other."""
    told = raw(gateway, asked(target, token))
    assert told.status in {400, 403}, told
    refused(told, told.status, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "target",
    ["/", "/anthropic", "/anthropicx/v1/messages", "/v1/messages", "/../anthropic/v1/messages", "/nobody/v1", "/ANTHROPIC/v1"],
)
def test_a_path_of_no_provider(gateway: Gateway, token: str, target: str) -> None:
    """404, with what a path looks like."""
    refused(raw(gateway, asked(target, token)), 404, "PROVIDER_UNKNOWN")


@pytest.mark.parametrize(
    ("request_line", "status", "reason"),
    [
        pytest.param("POST http://127.0.0.1/anthropic/v1/messages", 404, "INVALID_ARGUMENT", id="an absolute URI"),
        pytest.param("POST https://api.anthropic.com/v1/messages", 404, "INVALID_ARGUMENT", id="a proxy's request"),
        pytest.param("CONNECT api.anthropic.com:443", 404, "INVALID_ARGUMENT", id="CONNECT"),
        pytest.param("OPTIONS *", 404, "INVALID_ARGUMENT", id="OPTIONS *"),
        pytest.param("TRACE /anthropic/v1/messages", 403, "INVALID_ARGUMENT", id="TRACE"),
        pytest.param("OPTIONS /anthropic/v1/messages", 403, "INVALID_ARGUMENT", id="a browser's preflight"),
    ],
)
def test_what_is_no_request_to_an_api(gateway: Gateway, token: str, request_line: str, status: int, reason: str) -> None:
    """This is no proxy for wherever one likes."""
    request = f"{request_line} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {token}\r\ncontent-length: 0\r\n\r\n"
    refused(raw(gateway, request.encode()), status, reason)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param({"origin": "https://page.example"}, "BROWSER_REFUSED", id="a page's request"),
        pytest.param({"origin": "null"}, "BROWSER_REFUSED", id="a file's request"),
        pytest.param({"sec_fetch_site": "cross-site"}, "BROWSER_REFUSED", id="without an origin"),
        pytest.param({"sec_fetch_site": "same-origin"}, "BROWSER_REFUSED", id="after rebinding"),
        pytest.param({"host": "page.example"}, "HOST_REFUSED", id="a name that points here"),
        pytest.param({"host": "127.0.0.1.page.example:80"}, "HOST_REFUSED", id="one that begins like ours"),
        pytest.param({"host": "api.anthropic.com"}, "HOST_REFUSED", id="the vendor's"),
        pytest.param({"x_forwarded_for": "10.0.0.1"}, "FORWARDED_REFUSED", id="forwarded"),
        pytest.param({"x_forwarded_host": "gateway"}, "FORWARDED_REFUSED", id="forwarded for a host"),
        pytest.param({"forwarded": "for=10.0.0.1"}, "FORWARDED_REFUSED", id="RFC 7239"),
        pytest.param({"via": "1.1 proxy"}, "FORWARDED_REFUSED", id="via"),
    ],
)
def test_who_does_not_call_from_here(gateway: Gateway, token: str, headers: dict[str, str], reason: str) -> None:
    """Pages in a browser and other proxies' clients; a good token does not help."""
    refused(gateway.ask(token, **headers), 403, reason)


@pytest.mark.parametrize(
    "header",
    ["x-envoy-original-path: /openai/models", "x-envoy-upstream-rq-timeout-ms: 1", "x-envoy-retry-on: 5xx", ":path: /x"],
)
def test_what_is_too_much_or_not_http(gateway: Gateway, token: str, header: str) -> None:
    """Headers that would steer Envoy do not (there is no such provider); one that is no HTTP at all is refused."""
    told = raw(gateway, asked("/nobody/v1", token, header))
    refused(told, *((400, "INVALID_ARGUMENT") if header.startswith(":") else (404, "PROVIDER_UNKNOWN")))


@pytest.mark.parametrize(
    ("more", "status"),
    [
        pytest.param(["x-long: " + "x" * 70_000], 431, id="one long header"),
        pytest.param([f"x-{number}: y" for number in range(200)], 431, id="many headers"),
        pytest.param(["transfer-encoding: chunked"], 400, id="two lengths"),
    ],
)
def test_headers_that_are_not_taken(gateway: Gateway, token: str, more: list[str], status: int) -> None:
    """By Envoy itself; in the same form."""
    refused(raw(gateway, asked(MESSAGES, token, *more)), status, "INVALID_ARGUMENT")


def test_http_2_without_tls(gateway: Gateway, token: str) -> None:
    """Is spoken to who begins with it, and the same rules hold there."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl")
    http2 = [curl, "-sS", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{response_code}"]
    target = f"{gateway.url}/anthropic/v1/x%2f%2fy"
    done = subprocess.run(
        [*http2, "-H", f"x-api-key: {token}", target], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "2 403", done.stderr


def test_an_upgrade_to_something_else(gateway: Gateway, token: str) -> None:
    """WebSockets alone; a page's WebSocket no more than its requests."""
    h2c = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAARAAAAAAAIAAAAA")
    told = raw(gateway, asked("/anthropic/v1/x%2f%2fy", token, *h2c))
    refused(told, 403, "INVALID_ARGUMENT")
    refused(raw(gateway, asked(MESSAGES, token, "connection: Upgrade", "upgrade: tls/1.2")), 403, "INVALID_ARGUMENT")
    page = ("connection: Upgrade", "upgrade: websocket", "sec-websocket-key: x", "origin: https://page.example")
    refused(raw(gateway, asked(MESSAGES, token, *page)), 403, "BROWSER_REFUSED")


def test_rubbish(gateway: Gateway) -> None:
    """What is no HTTP, and what is another one."""
    refused(raw(gateway, b"rubbish\r\n\r\n"), 400, "INVALID_ARGUMENT")
    refused(raw(gateway, asked(MESSAGES, UNKNOWN, version="1.0")), 426, "INVALID_ARGUMENT")


def test_the_gateway_goes_on(gateway: Gateway, vendor: Upstream, token: str) -> None:
    """After all that."""
    assert gateway.ask(token).status == 200
    vendor.forget()
