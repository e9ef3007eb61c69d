"""The vendors' own clients exchange at the vendors of our tests, so that these want what the real ones do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from anthropic.lib.credentials import WorkloadIdentityCredentials
from openai.auth import k8s_service_account_token_provider
from openai.auth._workload import WorkloadIdentityAuth

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.workload import Identity, Workload, exchange_request
from equabot_broker.providers import PROVIDERS
from tests.fakes.identity_exchange import VENDORS, IdentityExchange, Issuer


@pytest.fixture
def vendors() -> Iterator[IdentityExchange]:
    with IdentityExchange(Issuer().keys) as serving:
        yield serving


def ours(vendor: str, token: str) -> dict[str, str]:
    """What the broker sends beside the token."""
    exchange = PROVIDERS[vendor].exchange
    assert exchange is not None
    told = {name: VENDORS[vendor].fields[name] for name in exchange.needs}
    workload = Workload(profile=f"{vendor}:pod", provider=vendor, token_file="/t", fields=told)
    fields = dict(exchange_request(exchange, workload, Identity(SecretValue(token), None)).fields)
    assert fields.pop(exchange.token) == SecretValue(token)
    return {name: str(value) for name, value in fields.items()}


def test_anthropics_client_sends_what_the_broker_sends(vendors: IdentityExchange) -> None:
    """The same fields with the same values, and the same header."""
    token = Issuer().token()
    with WorkloadIdentityCredentials(
        identity_token_provider=lambda: token,
        federation_rule_id="fdrl_1",
        organization_id="org-1",
        service_account_id="svac_1",
    ) as client:
        client.bind_base_url(f"{vendors.url}/anthropic")
        client()
    [asked] = vendors.asked
    exchange = PROVIDERS["anthropic"].exchange
    assert (asked.fields, asked.identity) == (ours("anthropic", token), token)
    assert exchange is not None
    assert asked.headers["anthropic-beta"] == exchange.headers["anthropic-beta"]


def test_openais_client_sends_what_the_broker_sends(vendors: IdentityExchange, tmp_path: Path) -> None:
    """The same fields with the same values, for a projected token."""
    token = Issuer().token()
    (tmp_path / "token").write_text(token)
    client = WorkloadIdentityAuth(
        workload_identity={
            "identity_provider_id": "idp_1",
            "service_account_id": "user_1",
            "provider": k8s_service_account_token_provider(tmp_path / "token"),
        },
        token_exchange_url=f"{vendors.url}/openai",
    )
    assert [client.get_token()] == vendors.given
    [asked] = vendors.asked
    assert (asked.fields, asked.identity) == (ours("openai", token), token)
