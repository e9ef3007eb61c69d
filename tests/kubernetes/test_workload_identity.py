"""Workload identity with a real cluster's tokens: projected as the kubelet does it, verified with the cluster's own keys."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from equabot_client import errors
from tests.fakes.identity_exchange import VENDORS, IdentityExchange, published
from tests.journeys.running import RunningBroker
from tests.kubernetes.api import Api

AUDIENCE = "https://api.anthropic.com"


@pytest.fixture
def vendor(cluster: Api, namespace: str) -> Iterator[IdentityExchange]:
    """It trusts one service account, by the keys that the API server publishes."""
    cluster.service_account(namespace, "coder")
    keys = published(cluster.call("GET", "/openid/v1/jwks"))
    subject = f"system:serviceaccount:{namespace}:coder"
    with IdentityExchange(keys, subject=subject, audience=AUDIENCE, life=3.0) as serving:
        yield serving


@pytest.fixture
def broker(vendor: IdentityExchange) -> Iterator[RunningBroker]:
    """A broker that is to exchange what is in `token`."""
    told = {name: value for name, value in VENDORS["anthropic"].fields.items() if name.endswith("_id")}
    config = {
        "providers": {"anthropic": {"token_url": f"{vendor.url}/anthropic"}},
        "required": ["anthropic"],
        "profiles": {"anthropic:pod": {"wif": {"token_file": "token", **told}}},
    }
    running = RunningBroker(credentials={}, dotenv="", config=json.dumps(config))
    yield running
    running.close()


def project(home: Path, token: str) -> str:
    """What the kubelet does with a token: another file in the place of the first."""
    (home / "new").write_text(token)
    (home / "new").rename(home / "token")
    return token


def test_a_service_accounts_token_is_exchanged_and_followed(
    cluster: Api, namespace: str, vendor: IdentityExchange, broker: RunningBroker
) -> None:
    """Its signature, audience and subject are looked at; a renewed one is sent with the next exchange."""
    first = project(broker.home, cluster.token(namespace, "coder", audiences=[AUDIENCE], seconds=600))
    broker.start()
    with broker.connect() as client:
        lease = client.acquire("anthropic")
        assert (lease.profile, lease.mode) == ("anthropic:pod", "wif")
        assert lease.secret.reveal() in vendor.given
        assert vendor.asked[0].identity == first
        second = project(broker.home, cluster.token(namespace, "coder", audiences=[AUDIENCE], seconds=600))
        broker.wait_for(lambda: vendor.asked[-1].identity == second)
        broker.wait_for(lambda: client.acquire("anthropic").secret.reveal() == vendor.given[-1])


def test_token_for_another_audience_or_account_is_refused(
    cluster: Api, namespace: str, vendor: IdentityExchange, broker: RunningBroker
) -> None:
    """The broker says where to look, and takes up the right one without a restart."""
    project(broker.home, cluster.token(namespace, "coder", audiences=["https://another.example"], seconds=600))
    broker.start(service="liveness")
    trust = "check that the vendor trusts the identity token's issuer, subject and audience"
    with broker.connect() as client, pytest.raises(errors.RefreshFailed, match=trust):
        client.acquire("anthropic")
    project(broker.home, cluster.token(namespace, "coder", audiences=[AUDIENCE], seconds=600))
    broker.wait_healthy()
