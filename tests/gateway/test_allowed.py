"""The built-in lists through a real Envoy: an agent that may have tokens alone, against each vendor's whole API."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from equabot_broker.domain.provider import Mode
from equabot_broker.providers import PROVIDERS
from equabot_client.errors import DeliveryNotAllowed
from tests.fakes.upstream import Upstream
from tests.gateway.running import Gateway
from tests.providers.requests_of_vendors import BASES, FORBIDDEN, NEEDED, rows

AGENTS = {
    "main": {"deliveries": ["brokered"], "max_leases": 1000},
    "narrow": {"providers": ["openai"], "deliveries": ["brokered"], "requests": ["POST /v1/responses", "!/v1/files*"]},
}
OWN: Final[dict[str, Any]] = {
    "acme": {"env": {"ACME_API_KEY": "api_key"}},
    "forbids": {"env": {"FORBIDS_API_KEY": "api_key"}, "requests": ["!/admin*"]},
    "open": {"env": {"OPEN_API_KEY": "api_key"}, "requests": ["* /**", "!/admin*"]},
}
IDS = sorted(PROVIDERS)


def base_of(provider: str) -> str:
    return urlsplit(PROVIDERS[provider].base_url or BASES[provider]).path


def key_of(provider: str) -> str:
    known = PROVIDERS[provider]
    names = [env.name for env in known.env_names if env.mode is Mode.API_KEY] or ["CODEX_LOGIN"]
    return f"{names[0]}={(known.key_prefixes or ('',))[0]}key-of-{provider}-{'0123456789' * 4}"


@pytest.fixture(scope="module")
def shared_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """With a key for every vendor, each at the base path that is its own."""
    providers: dict[str, Any] = {name: {"base_url": shared_vendor.url + base_of(name)} for name in IDS}
    providers["openai-codex"]["env"] = {"CODEX_LOGIN": "token"}
    gateway = Gateway(shared_vendor, dotenv="\n".join(map(key_of, IDS)) + "\n", providers=providers, agents=AGENTS)
    try:
        yield gateway.start()
    finally:
        gateway.close()


@pytest.fixture(scope="module")
def own_gateway(shared_vendor: Upstream) -> Iterator[Gateway]:
    """With providers that are not built in, next to OpenAI."""
    providers = {name: {"base_url": f"{shared_vendor.url}/v1", **facts} for name, facts in OWN.items()}
    dotenv = "".join(f"{name.upper()}_API_KEY=key-of-{name}-0123456789\n" for name in [*OWN, "openai"])
    gateway = Gateway(shared_vendor, dotenv=dotenv, providers=providers, agents=AGENTS)
    try:
        yield gateway.start()
    finally:
        gateway.close()


def passes(gateway: Gateway, token: str, method: str, target: str) -> bool:
    """Whether the gateway let it through, whatever the vendor answered."""
    told = gateway.ask("", target, method=method, authorization=f"Bearer {token}")
    assert told.reason in ("", "POLICY_DENIED"), (target, told)
    return not told.reason


@pytest.mark.parametrize("provider", IDS)
def test_an_agent_gets_what_it_needs_and_no_credential(gateway: Gateway, vendor: Upstream, provider: str) -> None:
    """S1: the vendor receives exactly the paths that were looked at, whether or not its base path is said; of the others none,
    said once, twice or in capitals."""
    token, base = gateway.lease(provider).secret.reveal(), base_of(provider)
    needed = [(method, path) for name, method, path in rows(NEEDED) if name == provider]
    for method, path in needed:
        targets = (f"/{provider}{path.removeprefix(base)}", f"/{provider}{path}")
        assert all(passes(gateway, token, method, target) for target in targets), path
    assert [(one.method, one.path) for one in vendor.received] == [one for one in needed for _ in range(2)]
    vendor.forget()
    for method, path in [(method, path) for name, method, path in rows(FORBIDDEN) if name == provider]:
        for spelling in (path, base + path, path.removeprefix(base), path.upper()):
            assert not passes(gateway, token, method, f"/{provider}{spelling}"), spelling
    assert vendor.received == []


def test_a_provider_without_a_list_is_not_in_the_gateway(own_gateway: Gateway, vendor: Upstream) -> None:
    """S1: no lease, with the words that a person needs; no route, for whatever token; no more in what Envoy is run with."""
    for provider in ("acme", "forbids"):
        with pytest.raises(DeliveryNotAllowed, match=rf'providers\.{provider}\.requests .* \["\* /\*\*"\] for all requests'):
            own_gateway.lease(provider)
        told = own_gateway.ask(own_gateway.lease("openai").secret.reveal(), f"/{provider}/v1/models", method="GET")
        assert (told.status, told.reason) == (404, "PROVIDER_UNKNOWN")
    assert vendor.received == []
    shown = own_gateway.run("gateway", "config").stdout
    assert "/open/" in shown
    assert "/acme/" not in shown
    assert "/forbids/" not in shown


def test_a_person_may_say_everything(own_gateway: Gateway, vendor: Upstream) -> None:
    """`* /**`, and what is forbidden of it."""
    token = own_gateway.lease("open").secret.reveal()
    assert passes(own_gateway, token, "DELETE", "/open/anything/at/all")
    assert vendor.received[-1].path == "/v1/anything/at/all"
    for path in ("/open/admin/keys", "/open/v1/ADMIN", "/open/v1/admin/"):
        assert not passes(own_gateway, token, "GET", path)


def test_an_agents_own_list_narrows_the_vendors(gateway: Gateway, vendor: Upstream) -> None:
    """Behind the base URL or whole; and opens nothing."""
    token = gateway.lease("openai", agent="narrow").secret.reveal()
    assert passes(gateway, token, "POST", "/openai/responses")
    assert passes(gateway, token, "POST", "/openai/v1/responses")
    assert passes(gateway, token, "POST", "/openai/v1/v1/responses")
    for path in ("/openai/v2/responses", "/openai/chat/completions", "/openai/files", "/openai/realtime/client_secrets"):
        assert not passes(gateway, token, "POST", path)
    assert {one.path for one in vendor.received} == {"/v1/responses"}


def test_a_query_is_no_other_request(gateway: Gateway, vendor: Upstream) -> None:
    """S1: neither its method nor its path is looked for there, and nobody else finds them there."""
    token = gateway.lease("google").secret.reveal()
    for query in ("$httpMethod=DELETE", "_method=DELETE", "x-http-method-override=PATCH"):
        told = gateway.ask("", f"/google/v1beta/models?{query}", method="GET", authorization=f"Bearer {token}")
        assert (told.status, told.reason) == (403, "INVALID_ARGUMENT")
    assert vendor.received == []
