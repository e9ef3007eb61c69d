"""A request as an agent sent it: from an agent, to a provider, with one token, wherever its SDK has put it."""

from dataclasses import replace
from string import ascii_lowercase, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.lease_tokens import made
from equabot_broker.domain.provider import BEARER, Catalog, HeaderForm, Mode, Provider
from equabot_broker.envoy.inspection import Inspection
from equabot_broker.envoy.refusals import RequestRefused
from equabot_broker.providers import PROVIDERS
from equabot_broker.providers.forwarding import COMMON
from equabot_broker.routing.forwarding import Names

_SECRET = made(b"\7" * 32).secret
assert _SECRET is not None
TOKEN = _SECRET.reveal()
HOST = "127.0.0.1:8787"
INSPECTION = Inspection(Catalog(PROVIDERS), ["gateway.internal", "fd00::1"])


def look(
    target: str = "/anthropic/v1/messages", headers: dict[str, str] | None = None, *, host: str = HOST, named: str = ""
) -> tuple[str, str, str]:
    provider = INSPECTION.provider(target, named)
    asked = INSPECTION.inspect(provider, target, host, {"x-api-key": TOKEN} if headers is None else headers)
    return asked.provider.id, asked.path, asked.token


def refused(*args: object, **kwargs: object) -> tuple[int, str]:
    with pytest.raises(RequestRefused) as raised:
        look(*args, **kwargs)  # type: ignore[arg-type]
    assert TOKEN not in raised.value.message
    return raised.value.status, raised.value.reason


@pytest.mark.parametrize(
    ("provider", "headers"),
    [
        ("anthropic", {"x-api-key": TOKEN}),
        ("anthropic", {"authorization": f"Bearer {TOKEN}"}),
        ("anthropic", {"authorization": f"bearer  {TOKEN} "}),
        ("anthropic", {"x-api-key": TOKEN, "authorization": f"Bearer {TOKEN}"}),
        ("anthropic", {"x-api-key": "", "authorization": f"Bearer {TOKEN}"}),
        ("google", {"x-goog-api-key": TOKEN}),
        ("openai", {"api-key": TOKEN}),
        ("openai", {"authorization": f"Bearer {TOKEN}"}),
        ("openai", {"proxy-authorization": f"Bearer {TOKEN}"}),
        ("deepgram", {"authorization": f"Token {TOKEN}"}),
        ("elevenlabs", {"xi-api-key": TOKEN}),
        ("brave", {"x-subscription-token": TOKEN}),
    ],
)
def test_the_token_is_found_where_sdks_put_it(provider: str, headers: dict[str, str]) -> None:
    """Also twice."""
    assert look(f"/{provider}/v1/x", headers) == (provider, "/v1/x", TOKEN)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "TOKEN_MISSING"),
        ({"authorization": ""}, "TOKEN_MISSING"),
        ({"xi-api-key": TOKEN}, "TOKEN_MISSING"),
        ({"x-api-key": "sk-ant-api03-the-real-key"}, "KEY_REFUSED"),
        ({"authorization": "Bearer sk-ant-oat01-the-real-token"}, "KEY_REFUSED"),
        ({"authorization": f"Basic {TOKEN}"}, "KEY_REFUSED"),
        ({"authorization": "Bearer"}, "KEY_REFUSED"),
        ({"x-api-key": "sk-ant-api03-the-real-key", "authorization": f"Bearer {TOKEN}"}, "TWO_CREDENTIALS"),
        ({"x-api-key": TOKEN, "authorization": f"Bearer {TOKEN[:-2]}AA"}, "TWO_CREDENTIALS"),
    ],
)
def test_anything_but_one_token_is_refused(headers: dict[str, str], why: str) -> None:
    """A real key above all: it must not go on as if the agent were meant to have it."""
    assert refused(headers=headers) == (401, why)


@pytest.mark.parametrize(
    "named", ["realtime, openai-insecure-api-key.sk-x", f"openai-insecure-api-key.{TOKEN}", "token, dg-key", "openai-project.x"]
)
def test_a_websocket_has_no_key_in_its_protocol(named: str) -> None:
    """The vendor would ask that one, and its answer would be taken for one about the profile's."""
    assert refused(headers={"x-api-key": TOKEN, "sec-websocket-protocol": named}) == (401, "KEY_REFUSED")
    assert look(headers={"x-api-key": TOKEN, "sec-websocket-protocol": "realtime, openai-beta.realtime-v1"})[2] == TOKEN


def test_two_tokens_in_one_header_are_none() -> None:
    """Envoy joins the values of a header that is sent twice; of what comes of it no lease is found."""
    assert look(headers={"x-api-key": f"{TOKEN},{TOKEN}"})[2] == f"{TOKEN},{TOKEN}"


@pytest.mark.parametrize(
    "query",
    [
        f"key={TOKEN}",
        "key=AIza-real",
        "alt=sse&api_key=x",
        "limit=1&Access_Token=x",
        f"anything={TOKEN}",
        "auth-token=x",
        "%6bey=x",
        "a=1;key=x",
        "$key=x",
        "access%5Ftoken=x",
        "oauth_token=x",
        f"x=%65{TOKEN[1:]}",
    ],
)
def test_a_query_is_not_a_place_for_a_secret(query: str) -> None:
    """It is in logs."""
    assert refused(f"/google/v1beta/models?{query}", {"x-goog-api-key": TOKEN}) == (401, "TOKEN_IN_QUERY")


@pytest.mark.parametrize(
    "query",
    ["beta=true", "alt=sse", "include[]=a&include%5B%5D=b", "pageToken=x", "q=a%26key=b", "&limit=1&", ""],
)
def test_other_queries_pass(query: str) -> None:
    """And are no part of the path."""
    assert look(f"/anthropic/v1/messages?{query}")[1] == "/v1/messages"


@pytest.mark.parametrize(
    ("target", "named", "provider", "path"),
    [
        ("/anthropic/v1/messages", "anthropic", "anthropic", "/v1/messages"),
        ("/anthropic/v1/messages", "", "anthropic", "/v1/messages"),
        ("/openai-codex/codex/responses", "openai-codex", "openai-codex", "/codex/responses"),
        ("/anthropic/", "anthropic", "anthropic", "/"),
        ("/anthropic", "", "anthropic", "/"),
        ("/anthropic?beta=true", "", "anthropic", "/"),
    ],
)
def test_the_path_begins_with_the_provider(target: str, named: str, provider: str, path: str) -> None:
    """Whom the route names, where it names one."""
    assert look(target, named=named) == (provider, path, TOKEN)


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("/nobody/v1", ""),
        ("/", ""),
        ("", ""),
        ("*", ""),
        ("//anthropic/v1", ""),
        ("/claudes/v1/messages", ""),
        ("/Claude/v1/messages", ""),
        ("/claude/v1/messages", "openai"),
        ("/openai/v1/messages", "anthropic"),
        ("/anthropic/v1", "nobody"),
        ("/%61nthropic/v1", "anthropic"),
        ("http://elsewhere/anthropic/v1", ""),
        ("http://elsewhere/anthropic/v1", "anthropic"),
        ("/anthropicx/v1", "anthropic"),
    ],
)
def test_another_path_leads_nowhere(target: str, named: str) -> None:
    """A route and a path that do not agree lead nowhere either."""
    assert refused(target, named=named) == (404, "PROVIDER_UNKNOWN")


@pytest.mark.parametrize(
    "rest", ["/../openai/v1", "//v1/messages", "/v1/%2e%2e/x", "/v1%2f%2fmessages", "/v1\\messages", "/%6Dessages", "/a b"]
)
def test_a_path_has_one_spelling(rest: str) -> None:
    """The rules for it are asked about what the vendor will see."""
    assert refused(f"/anthropic{rest}") == (403, "INVALID_ARGUMENT")


@pytest.mark.parametrize("host", [HOST, "127.0.0.1", "LOCALHOST:1", "[::1]:8787", "Gateway.Internal:80", "[fd00::1]:80", ""])
def test_the_gateway_has_names(host: str) -> None:
    """This machine's, and those that were configured."""
    assert look(host=host)[0] == "anthropic"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8787", "10.0.0.1", "[::2]"])
def test_a_page_whose_name_resolves_here_learns_nothing(host: str) -> None:
    """DNS rebinding: the name stays the page's."""
    assert refused(host=host) == (403, "HOST_REFUSED")


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"origin": "https://evil.example"}, "BROWSER_REFUSED"),
        ({"origin": "null"}, "BROWSER_REFUSED"),
        ({"origin": ""}, "BROWSER_REFUSED"),
        ({"origin": "127.0.0.1:8787"}, "BROWSER_REFUSED"),
        ({"origin": "http://127.0.0.1"}, "BROWSER_REFUSED"),
        ({"origin": "http://127.0.0.1:3000"}, "BROWSER_REFUSED"),
        ({"origin": "http://localhost:8787"}, "BROWSER_REFUSED"),
        ({"origin": "http://127.0.0.1:8787/"}, "BROWSER_REFUSED"),
        ({"origin": "http://127.0.0.1:8787, http://evil.example"}, "BROWSER_REFUSED"),
        ({"origin": "file://127.0.0.1:8787"}, "BROWSER_REFUSED"),
        ({"origin": "http://127.0.0.1:8787", "sec-fetch-site": "same-origin"}, "BROWSER_REFUSED"),
        ({"sec-fetch-site": "cross-site"}, "BROWSER_REFUSED"),
        ({"sec-fetch-site": "same-origin"}, "BROWSER_REFUSED"),
        ({"forwarded": "for=1.2.3.4"}, "FORWARDED_REFUSED"),
        ({"x-forwarded-for": "1.2.3.4"}, "FORWARDED_REFUSED"),
        ({"x-forwarded-host": "elsewhere"}, "FORWARDED_REFUSED"),
        ({"via": "1.1 proxy"}, "FORWARDED_REFUSED"),
        ({"x_forwarded_for": "1.2.3.4"}, "FORWARDED_REFUSED"),
        ({"x-real_ip": "1.2.3.4"}, "FORWARDED_REFUSED"),
    ],
)
def test_pages_and_proxies_are_refused(headers: dict[str, str], why: str) -> None:
    """With a valid token as well."""
    assert refused(headers={"x-api-key": TOKEN, **headers}) == (403, why)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8787", "HTTP://127.0.0.1:8787", "https://127.0.0.1:8787"])
def test_the_gateways_own_origin_is_not_a_page(origin: str) -> None:
    """C21: `websocket-client` makes one of the address that it calls. Another host's is refused, though it leads here."""
    assert look(headers={"x-api-key": TOKEN, "origin": origin})[2] == TOKEN
    page = {"x-api-key": TOKEN, "origin": "http://evil.example:8787"}
    assert refused(headers=page, host="evil.example:8787") == (403, "BROWSER_REFUSED")


@pytest.mark.parametrize("target", ["/claude/v1/messages", "/anthropic/v1/messages"])
def test_a_path_may_begin_with_any_name_of_the_provider(target: str) -> None:
    """C16: as the commands take them."""
    for named in ("", "anthropic"):
        found = INSPECTION.inspect(INSPECTION.provider(target, named), target, HOST, {"x-api-key": TOKEN})
        assert (found.provider.id, found.path) == ("anthropic", "/v1/messages")


def removed(provider: str, headers: dict[str, str]) -> tuple[str, ...]:
    target = f"/{provider}/v1/responses"
    given = {"authorization": f"Bearer {TOKEN}"} | headers
    found = INSPECTION.inspect(INSPECTION.provider(target, ""), target, HOST, given)
    return tuple(name for name in found.removed if name != "authorization")


def test_a_name_with_an_underscore_is_listed_as_it_is_written() -> None:
    """C2: `session_id` goes on to whom it is listed for; no other spelling of a listed name does."""
    assert removed("openai-codex", {"session_id": "s", "conversation_id": "c"}) == ()
    assert removed("groq", {"session_id": "s"}) == ("session_id",)
    odd = {
        "x_made_up": "y",
        "anthropic_beta": "files",
        "content_length": "7",
        "transfer_encoding": "chunked",
        "user_agent": "me",
    }
    assert removed("openai", odd) == tuple(odd)


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("x_api_key", 401, "KEY_REFUSED"),
        ("x-api_key", 401, "KEY_REFUSED"),
        ("authorization_", 401, "KEY_REFUSED"),
        ("x_auth_token", 401, "KEY_REFUSED"),
        ("proxy_authorization", 401, "KEY_REFUSED"),
        ("x_http_method_override", 403, "INVALID_ARGUMENT"),
        ("x_original-url", 403, "INVALID_ARGUMENT"),
        ("x_forwarded_host", 403, "FORWARDED_REFUSED"),
    ],
)
def test_an_underscore_hides_nothing(name: str, status: int, reason: str) -> None:
    """C2: to some servers `x_api_key` is `x-api-key`. It is judged as that, and never taken for the token's place."""
    assert refused(headers={"authorization": f"Bearer {TOKEN}", name: "another"}) == (status, reason)
    assert refused(headers={"x_api_key": TOKEN}) == (401, "TOKEN_MISSING")


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "none"}, {"sec-fetch-mode": "cors"}, {"x-forwarded-proto": "http"}])
def test_what_sdks_and_envoy_send_is_not_a_page_and_no_proxy(headers: dict[str, str]) -> None:
    """The fetch of Node.js says its mode; Envoy the scheme."""
    assert look(headers={"x-api-key": TOKEN, **headers})[2] == TOKEN


@pytest.mark.parametrize(
    "headers",
    [
        {"x-http-method-override": "DELETE"},
        {"x-original-url": "/v1/organizations"},
        {"connection": "Upgrade, x-api-key", "upgrade": "websocket"},
        {"connection": "Authorization"},
    ],
)
def test_a_request_is_what_it_looks_like(headers: dict[str, str]) -> None:
    """No other method or path to some servers than to the rules; and nothing that loses its credential on the way."""
    assert refused(headers={"x-api-key": TOKEN, **headers}) == (403, "INVALID_ARGUMENT")


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "close"])
def test_what_is_said_of_the_connection_alone_passes(connection: str) -> None:
    """As clients of WebSockets do."""
    assert look(headers={"x-api-key": TOKEN, "connection": connection})[2] == TOKEN


def test_a_header_of_a_configured_provider_is_looked_into() -> None:
    """Its form is data like any other's."""
    acme = Provider(id="acme", headers={Mode.API_KEY: HeaderForm("X-Acme", "Key "), Mode.TOKEN: BEARER})
    inspection = Inspection(Catalog({"acme": acme}))
    asked = inspection.inspect(acme, "/acme/x", "", {"x-acme": f"Key {TOKEN}"})
    assert (asked.token, asked.removed) == (TOKEN, ("x-acme",))
    with pytest.raises(RequestRefused, match="send the lease token"):
        inspection.inspect(acme, "/acme/x", "", {"x-acme": "Key of-acme"})


# -- what goes on to the vendor ----------------------------------------------------------------------------------------

KEY = "sk-ant-api03-" + "0123456789abcdef" * 4
NAMES = st.text(f"{ascii_lowercase}{digits}-", min_size=1, max_size=40)
SECOND = (
    "x-litellm-api-key", "ocp-apim-subscription-key", "x-auth-token", "x-api-token", "xi-api-key", "x-subscription-token",
    "private-token", "x-amz-security-token", "x-authorization", "authentication", "x-access-key", "x-client-secret",
)  # fmt: skip


def asked(headers: dict[str, str], provider: str = "anthropic", inspection: Inspection = INSPECTION) -> tuple[str, ...]:
    """The headers that do not go on."""
    found = inspection.provider(f"/{provider}/x", provider)
    return inspection.inspect(found, f"/{provider}/x", HOST, {"authorization": f"Bearer {TOKEN}", **headers}).removed


@pytest.mark.parametrize("name", SECOND)
@pytest.mark.parametrize("provider", ["anthropic", "openai", "litellm", "microsoft-foundry"])
def test_a_second_credential_is_refused(provider: str, name: str) -> None:
    """S4: its answer would be about that one, and be taken for one about the profile's."""
    with pytest.raises(RequestRefused) as raised:
        asked({name: "anything"}, provider)
    assert (raised.value.status, raised.value.reason) == (401, "KEY_REFUSED")
    assert f"providers.{provider}.forward_headers" in raised.value.message


@pytest.mark.parametrize("name", SECOND)
def test_the_token_in_two_headers_is_not_a_second_credential(name: str) -> None:
    """Some SDKs do so. It does not go on, and neither does an empty header."""
    assert name in asked({name: TOKEN})
    assert name in asked({name: f"Bearer {TOKEN}"})
    assert name in asked({name: ""})


@given(NAMES, st.sampled_from(sorted(PROVIDERS)))
def test_a_header_that_is_not_listed_does_not_reach_the_vendor(name: str, provider: str) -> None:
    """S4: it is removed, or the request is refused; whatever it is called."""
    known = PROVIDERS[provider]
    listed = Names((*COMMON.headers.split(), *known.forward_headers, *known.accounts))
    try:
        removed = asked({name: "anything"}, provider)
    except RequestRefused:
        return
    assert (
        name in removed
        or name == "host"
        or (name in listed and name not in {form.name.lower() for form in known.headers.values()})
    )


def test_cookies_do_not_reach_the_vendor() -> None:
    """S4: HTTP clients send back what an answer has set, so they are removed and not refused."""
    assert "cookie" in asked({"cookie": "session=x"})


def test_what_sdks_send_goes_on() -> None:
    """Only the token is taken out."""
    stainless = {f"x-stainless-{name}": "x" for name in ("lang", "package-version", "os", "arch", "runtime", "retry-count")}
    usual = {
        "accept": "*/*",
        "content-type": "application/json",
        "user-agent": "Anthropic/Python 0.84.0",
        "anthropic-beta": "x",
    }
    assert asked({**stainless, **usual, "openai-organization": "org-1"}, "openai") == ("authorization",)


@pytest.mark.parametrize(
    "header", ["user-agent", "accept", "anthropic-beta", "traceparent", "x-stainless-lang", "idempotency-key", "content-type"]
)
@pytest.mark.parametrize("value", [KEY, f"x {KEY}", TOKEN, "AIza" + "0" * 35, "eyJhbGciOi1.eyJzdWIiOiIx.x"])
def test_no_header_holds_a_credential(header: str, value: str) -> None:
    """S4: a listed one neither. No message shows it."""
    with pytest.raises(RequestRefused) as raised:
        asked({header: value})
    assert raised.value.reason == "KEY_REFUSED"
    assert value not in raised.value.message


@pytest.mark.parametrize(
    "parameter",
    [
        "token", "authorization", "x-api-key", "xi-api-key", "single_use_token", "key", "access_token", "sig", "signature",
        "X-Amz-Signature", "X-Amz-Credential", "code", "se", "%74oken", "KEY", "api.key", "key[]", "$key", "jwt",
    ],
)  # fmt: skip
@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_no_query_holds_a_credential(provider: str, parameter: str) -> None:
    """S4: of no provider."""
    token = {"authorization": f"Bearer {TOKEN}"}
    assert refused(f"/{provider}/x?limit=1&{parameter}=x", token)[1] in {"TOKEN_IN_QUERY", "POLICY_DENIED"}


@given(NAMES, st.sampled_from(sorted(PROVIDERS)))
def test_a_query_parameter_that_is_not_listed_is_refused(name: str, provider: str) -> None:
    """S4: whatever it is called."""
    known = PROVIDERS[provider]
    if name in Names((*COMMON.query.split(), *known.query)):
        return
    assert refused(f"/{provider}/x?{name}=1", {"authorization": f"Bearer {TOKEN}"})[1] in {"TOKEN_IN_QUERY", "POLICY_DENIED"}


def test_a_listed_query_parameter_holds_no_credential() -> None:
    """S4: encoded once or twice, it is one all the same."""
    for value in (KEY, KEY.replace("-", "%2D"), KEY.replace("-", "%252d"), "AIza" + "0" * 35):
        assert refused(f"/anthropic/v1/models?after_id={value}") == (401, "TOKEN_IN_QUERY")


def test_a_refusal_says_how_a_parameter_is_allowed() -> None:
    """By its name, unless that could be a key itself."""
    with pytest.raises(RequestRefused, match=r"'team' is not allowed for anthropic: .* list it in providers.anthropic.query"):
        look("/anthropic/v1/models?team=1")
    with pytest.raises(RequestRefused, match="of that name"):
        look(f"/anthropic/v1/models?{'x' * 60}=1")


@given(st.text("abcdefgh.-_", min_size=1, max_size=30))
def test_a_websocket_protocol_that_is_not_listed_is_refused(name: str) -> None:
    """S4: whatever it is called, and next to one that is."""
    headers = {"x-api-key": TOKEN, "sec-websocket-protocol": f"realtime, {name}"}
    if name not in COMMON.subprotocols.split():
        assert refused(headers=headers) == (401, "KEY_REFUSED")


@pytest.mark.parametrize("named", ["rt_0123456789abcdef", "xai-client-secret.x", "openai-insecure-api-key.sk-x", "token", ""])
def test_no_websocket_protocol_is_a_credential(named: str) -> None:
    """S4: those of the vendors' browsers."""
    headers = {"x-api-key": TOKEN, "sec-websocket-protocol": f"realtime,{named}"}
    assert refused(headers=headers) == (401, "KEY_REFUSED")


def test_an_operator_adds_to_the_lists() -> None:
    """By provider: what is added goes on, and nothing else. The header of the token never does."""
    mine = replace(
        PROVIDERS["anthropic"],
        forward_headers=("x-team", "x-acme-*", "x-auth-hint", "authorization"),
        query=("team",),
        subprotocols=("acme.v1",),
    )
    inspection = Inspection(Catalog({"anthropic": mine}))
    sent = {"x-team": "a", "x-acme-region": "eu", "x-auth-hint": "a", "x-other": "a", "sec-websocket-protocol": "acme.v1"}
    assert set(asked(sent, inspection=inspection)) == {"x-other", "authorization"}
    assert inspection.inspect(mine, "/anthropic/x?team=1", HOST, {"x-api-key": TOKEN}).path == "/x"
    with pytest.raises(RequestRefused):
        asked({"x-acme-token": "a"}, inspection=inspection)


@pytest.mark.parametrize(
    "name",
    [
        "forwarded", "via", "x-forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-server",
        "x-forwarded-prefix", "x-forwarded-uri", "x-forwarded-user", "x-real-ip", "x-original-forwarded-for", "x-original-host",
        "x-client-ip", "true-client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "x-cluster-client-ip", "fastly-client-ip",
        "x-remote-addr", "x-azure-clientip", "x-appengine-user-ip",
    ],
)  # fmt: skip
def test_a_proxys_header_is_refused(name: str) -> None:
    """S20: every one that the documents name, and its like."""
    assert refused(headers={"x-api-key": TOKEN, name: "10.0.0.1"}) == (403, "FORWARDED_REFUSED")
