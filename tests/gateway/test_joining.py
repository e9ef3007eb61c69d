"""Base URLs as people write them and paths as SDKs join them, through a real Envoy: what the vendor receives."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import anthropic
import openai
import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.running import MESSAGES, OPENAI_KEY, Gateway
from tests.gateway.websocket import WebSocket
from tests.journeys.running import KEY

KEY_OF = "-key-of-somebody-" + "0123456789" * 4
KEYS = "".join(f"{name}_API_KEY={name}{KEY_OF}\n" for name in ("DEEPSEEK", "ZAI", "ACME"))
HI: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def shared_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """With vendors at their own base paths, and a provider of one's own without one."""
    bases = {"anthropic": "", "openai": "/v1", "openrouter": "/api/v1", "deepseek": "", "zai": "/api/paas/v4/", "google": ""}
    providers: dict[str, dict[str, object]] = {name: {"base_url": shared_vendor.url + base} for name, base in bases.items()}
    rules = ["POST /v1/chat/completions", "GET /v1/models", "!/v1/admin*"]
    providers["acme"] = {"base_url": shared_vendor.url, "env": {"ACME_API_KEY": "api_key"}, "requests": rules}
    dotenv = f"{KEYS}OPENROUTER_API_KEY=sk-or-v1{KEY_OF}\nANTHROPIC_API_KEY={KEY}\nOPENAI_API_KEY={OPENAI_KEY}\n"
    dotenv += f"GEMINI_API_KEY=AIza{'0123456789' * 3}\n"
    gateway = Gateway(shared_vendor, dotenv=dotenv, providers=providers, agents={"main": {"max_leases": 1000}})
    try:
        yield gateway.start()
    finally:
        gateway.close()


def asked(gateway: Gateway, provider: str, request: str) -> tuple[int, str]:
    method, path = request.split(" ", 1)
    told = gateway.ask("", path, method=method, authorization=f"Bearer {gateway.lease(provider).secret.reveal()}")
    return told.status, told.reason


@pytest.mark.parametrize("base", ["/anthropic", "/anthropic/", "/anthropic/v1", "/anthropic/v1/", "/claude"])
def test_anthropics_package_is_served_at_every_base_url(gateway: Gateway, vendor: Upstream, base: str) -> None:
    """C4, C16: messages, their count and the list of models."""
    token = gateway.lease().secret.reveal()
    with anthropic.Anthropic(api_key=token, base_url=gateway.url + base, max_retries=0) as client:
        client.messages.create(model="claude", max_tokens=9, messages=HI)
        client.messages.count_tokens(model="claude", messages=HI)
        client.models.list()
    assert [one.path for one in vendor.received] == ["/v1/messages", "/v1/messages/count_tokens", "/v1/models"]


@pytest.mark.parametrize(
    ("provider", "base", "before"),
    [
        ("openai", "/openai", "/v1"),
        ("openai", "/openai/v1", "/v1"),
        ("openai", "/openai/v1/v1/", "/v1"),
        ("openrouter", "/openrouter", "/api/v1"),
        ("openrouter", "/openrouter/v1", "/api/v1"),
        ("openrouter", "/openrouter/api/v1", "/api/v1"),
        ("openrouter", "/openrouter/api/v1/v1", "/api/v1"),
        ("zai", "/zai/v1", "/api/paas/v4"),
        ("zai", "/z.ai/api/paas/v4", "/api/paas/v4"),
        ("deepseek", "/deepseek/v1", "/v1"),
        ("google", "/gemini/v1beta/openai/", "/v1beta/openai"),
        ("acme", "/acme", "/v1"),
        ("acme", "/acme/v1", "/v1"),
        ("acme", "/acme/v1/v1", "/v1"),
    ],
)
def test_openais_package_is_served_at_every_base_url(
    gateway: Gateway, vendor: Upstream, provider: str, base: str, before: str
) -> None:
    """C4: with the vendor's base path, without it, and with one version too many; of vendors and of a provider of one's own."""
    token = gateway.lease(provider).secret.reveal()
    with openai.OpenAI(api_key=token, base_url=gateway.url + base, max_retries=0) as client:
        client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "hi"}])
        client.models.list()
    assert [one.path for one in vendor.received] == [f"{before}/chat/completions", f"{before}/models"]


@pytest.mark.parametrize(
    ("provider", "request_line", "received"),
    [
        ("anthropic", "POST /anthropic/messages", "/v1/messages"),
        ("anthropic", "POST /anthropic/v1/messages/?beta=true", "/v1/messages?beta=true"),
        ("deepseek", "POST /deepseek/v1/messages", "/anthropic/v1/messages"),
        ("deepseek", "POST /deepseek/anthropic/messages", "/anthropic/v1/messages"),
        ("openrouter", "POST /openrouter/v1/messages?beta=true", "/api/v1/messages?beta=true"),
        ("openrouter", "POST /openrouter/api/messages", "/api/v1/messages"),
        ("google", "POST /google/models/g:generateContent", "/v1beta/models/g:generateContent"),
        ("google", "POST /google/v1beta/models/g%3AgenerateContent", "/v1beta/models/g%3AgenerateContent"),
        ("google", "POST /google/v1beta/openai/v1/chat/completions", "/v1beta/openai/chat/completions"),
        (
            "google",
            "POST /gemini/v1beta/models/g:streamGenerateContent?alt=sse",
            "/v1beta/models/g:streamGenerateContent?alt=sse",
        ),
    ],
)
def test_the_vendor_receives_the_path_that_was_meant(
    gateway: Gateway, vendor: Upstream, provider: str, request_line: str, received: str
) -> None:
    """C4, C16: as other SDKs ask; the query goes on as it was."""
    assert asked(gateway, provider, request_line) == (200, "")
    assert [one.path for one in vendor.received] == [received]


@pytest.mark.parametrize(
    ("provider", "request_line"),
    [
        ("anthropic", "GET /anthropic/organizations/api_keys"),
        ("anthropic", "GET /anthropic/v1/v1/organizations/api_keys"),
        ("openrouter", "GET /openrouter/v1/keys"),
        ("openrouter", "GET /openrouter/api/v1/api/v1/keys"),
        ("google", "POST /google/auth_tokens"),
        ("acme", "GET /acme/admin"),
        ("acme", "GET /acme/v1/v1/admin/"),
        ("anthropic", "HEAD /anthropic/v1"),
    ],
)
def test_no_way_of_joining_reaches_more(gateway: Gateway, vendor: Upstream, provider: str, request_line: str) -> None:
    """C4: what no list names is refused in every spelling, and the vendor hears nothing of it."""
    assert asked(gateway, provider, request_line) == (403, "POLICY_DENIED")
    assert vendor.received == []


@pytest.mark.parametrize("model", ["anthropic/claude-sonnet", "ft:gpt-4o-mini:my-org::7p4lURel", "ft:gpt-4o:my-team:x:id"])
def test_a_models_name_is_looked_up_as_it_is(gateway: Gateway, vendor: Upstream, model: str) -> None:
    """C16: with an encoded slash, and with an organisation in it; a key's name behind a slash is refused."""
    token = gateway.lease("openai").secret.reveal()
    paths = [f"/openai/v1/models/{quote(model, safe=safe)}" for safe in (":", "")]
    for path in paths:
        assert gateway.ask("", path, method="GET", authorization=f"Bearer {token}").reason == ""
    assert [one.path for one in vendor.received] == [path.removeprefix("/openai") for path in paths]
    odd = gateway.ask("", "/openai/v1/models/x%2Fapi_keys", method="GET", authorization=f"Bearer {token}")
    assert (odd.status, odd.reason) == (403, "POLICY_DENIED")


def test_a_look_at_the_base_url_is_answered_here(gateway: Gateway, vendor: Upstream) -> None:
    """C16: a client that looks at its start whether something is there finds it, without a token; that is all."""
    for path in ("/anthropic", "/anthropic/", "/claude", "/openai/", "/openai/v1", "/openrouter/api/v1/", "/z.ai/api/paas/v4"):
        told = gateway.ask("", path, method="HEAD")
        assert (told.status, told.body) == (200, b"")
    assert gateway.ask("", "/nobody", method="HEAD").status == 404
    assert gateway.ask("", "/anthropic", method="GET").status == 404
    assert gateway.ask("", "/anthropic", method="HEAD", host="page.example").status == 403
    assert vendor.received == []


def test_names_with_underscores_are_no_fault_of_the_request(gateway: Gateway, vendor: Upstream) -> None:
    """C2: what is listed goes on, what is not is left out, and what hides a credential is refused by its name."""
    token = gateway.lease("openai").secret.reveal()
    with openai.OpenAI(api_key=token, base_url=f"{gateway.url}/openai", max_retries=0) as client:
        more = {"session_id": "s-1", "conversation_id": "c-1", "x_made_up": "y", "content_length_": "1", "openai_beta": "z"}
        client.responses.create(model="gpt", input="hi", extra_headers=more)
        received = vendor.received[-1].headers
        assert (received["session_id"], received["conversation_id"]) == ("s-1", "c-1")
        assert not {"x_made_up", "content_length_", "openai_beta"} & received.keys()
        assert json.loads(vendor.received[-1].body)["input"] == "hi"
        for name in ("x_api_key", "Authorization_", "proxy_authorization"):
            with pytest.raises(openai.AuthenticationError, match="second credential"):
                client.responses.create(model="gpt", input="hi", extra_headers={name: "sk-another"})
        assert len(vendor.received) == 1


def test_the_gateways_own_origin_passes_and_no_other(gateway: Gateway, vendor: Upstream) -> None:
    """C21: as `websocket-client` says it, and no origin reaches the vendor; a page's is refused whatever name leads here."""
    bearer = f"Bearer {gateway.lease('openai').secret.reveal()}"
    with WebSocket(gateway.port, "/openai/realtime?model=gpt", authorization=bearer, origin=gateway.url) as socket:
        assert socket.echo(b"hello") == b"hello"
    assert "origin" not in vendor.received[-1].headers
    for origin in ("http://127.0.0.1", f"http://localhost:{gateway.port}", f"http://page.example:{gateway.port}"):
        with pytest.raises(ConnectionError, match="403"):
            WebSocket(gateway.port, "/openai/realtime?model=gpt", authorization=bearer, origin=origin)
    page = f"page.example:{gateway.port}"
    assert gateway.ask("", MESSAGES, host=page, origin=f"http://{page}").reason in ("HOST_REFUSED", "BROWSER_REFUSED")
