"""Logins in Secrets, refreshed by one of several real brokers on a real API server, each with just the rights it needs."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from equabot_client import errors
from tests.fakes.token_endpoint import Entry, TokenEndpoint
from tests.journeys.running import RunningBroker
from tests.kubernetes.api import Api, Json

BROKERS = 4
LIFE = 6.0
RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["llm"], "verbs": ["get", "list", "watch", "update"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["equabot-refresh-llm"],
        "verbs": ["get", "update"],
    },
]  # fmt: skip


class Place:
    """A namespace with a Secret `llm`, an endpoint, and brokers that see both."""

    def __init__(self, cluster: Api, namespace: str, endpoint: TokenEndpoint, stack: ExitStack) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.endpoint = endpoint
        self._stack = stack

    def broker(self, rules: list[Json] | None = None, *, account: str = "broker") -> RunningBroker:
        """One with an account of these rights, not yet started."""
        user = self.cluster.service_account(self.namespace, account, rules=RULES if rules is None else rules).user
        provider = {"token_url": self.endpoint.url, "client_id": "cli"}
        config = {
            "sources": [{"kubernetes": {"names": ["llm"], "kubeconfig": "kubeconfig"}}],
            "providers": {"acme": provider | {"base_url": "https://api.acme.example"}, "anthropic": provider},
        }
        made = RunningBroker(credentials={}, dotenv="", config=json.dumps(config))
        self._stack.callback(made.close)
        self.cluster.kubeconfig(made.home / "kubeconfig", user=user, namespace=self.namespace)
        return made

    def store(self, tokens: dict[str, Any], **more: str) -> None:
        """The Secret, as `kubectl apply` leaves it: with the annotations that others made."""
        entries = {"acme:me": {"type": "oauth", "provider": "acme", **tokens}}
        data = {"auth-profiles.json": json.dumps({"version": 1, "profiles": entries}), **more}
        self.cluster.secret(self.namespace, "llm", data)

    def secret(self) -> Json:
        return self.cluster.get("Secret", "llm", namespace=self.namespace)

    def read(self, key: str = "auth-profiles.json") -> Json:
        found = json.loads(base64.b64decode(self.secret()["data"][key]))
        assert isinstance(found, dict)
        return found

    def noted(self, name: str) -> str:
        return str(self.secret()["metadata"].get("annotations", {}).get(f"equabot.dev/{name}", ""))

    @property
    def presented(self) -> list[Entry]:
        return [entry for entry in self.endpoint.ledger() if entry.event == "presented"]


@pytest.fixture
def place(cluster: Api, namespace: str, tmp_path: Path) -> Iterator[Place]:
    with TokenEndpoint(tmp_path / "ledger", life=LIFE) as endpoint, ExitStack() as stack:
        yield Place(cluster, namespace, endpoint, stack)


def eventually(what: Callable[[], bool], *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.timeout(180)
def test_brokers_on_several_nodes_share_one_login(place: Place) -> None:
    """Started on a login that has expired, one refreshes it, and then whoever is first; all hand out what came. Somebody who
    labels the Secret meanwhile is not in the way, and an older manifest is not believed."""
    old = place.endpoint.login("me", life=-1.0)
    place.store(old, NOTE="1")
    brokers = [place.broker() for _ in range(BROKERS)]
    threads = [threading.Thread(target=broker.start, kwargs={"service": "provider/acme"}) for broker in brokers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(20):
        labels = {"metadata": {"labels": {"note": str(number)}}}
        place.cluster.patch("Secret", "llm", labels, namespace=place.namespace)
        time.sleep(0.2)
    eventually(lambda: len(place.presented) >= 3)
    tokens = [entry.token for entry in place.presented]
    assert len(tokens) == len(set(tokens)), "a refresh token was presented twice"
    assert {entry.verdict for entry in place.presented} == {"redeemed"}
    assert place.secret()["metadata"]["labels"] == {"note": "19"}
    assert base64.b64decode(place.secret()["data"]["NOTE"]) == b"1"

    shown = len(place.presented)
    stale = place.secret()
    stale["data"]["auth-profiles.json"] = base64.b64encode(
        json.dumps({"version": 1, "profiles": {"acme:me": {"type": "oauth", "provider": "acme", **old}}}).encode()
    ).decode()
    del stale["metadata"]["resourceVersion"]
    place.endpoint.life = 600
    place.cluster.replace(stale)
    for broker in brokers:
        broker.wait_healthy("provider/acme", serving=False)
    with brokers[0].connect() as client, pytest.raises(errors.ReauthRequired, match="an older login was restored"):
        client.acquire("acme")
    assert old["refresh"] not in [entry.token for entry in place.presented[shown:]]

    anew = place.endpoint.login("me", life=600.0)
    place.store(anew)
    for broker in brokers:
        broker.wait_healthy("provider/acme")
        assert broker.run("key", "acme").stdout.strip() == anew["access"]


def test_claudes_own_login_is_refreshed_where_the_annotation_says_so(place: Place) -> None:
    """In its own file; without the annotation it is the copy of a login that another program refreshes."""
    tokens = place.endpoint.login("claude", life=-1.0)
    login = {"accessToken": tokens["access"], "refreshToken": tokens["refresh"], "expiresAt": tokens["expires"]}
    data = {".credentials.json": json.dumps({"claudeAiOauth": login | {"scopes": ["user"]}})}
    place.cluster.secret(place.namespace, "llm", data)
    place.endpoint.life = 3600.0
    broker = place.broker().start()
    broker.wait_healthy("provider/anthropic", serving=False)
    assert place.presented == []
    place.cluster.secret(place.namespace, "llm", data, annotations={"equabot.dev/mode": "oauth"})
    broker.wait_healthy("provider/anthropic")
    found = place.read(".credentials.json")["claudeAiOauth"]
    assert (found["accessToken"], found["scopes"]) == (broker.run("key", "anthropic").stdout.strip(), ["user"])
    assert len(place.presented) == 1


def test_missing_rights_are_reported_and_the_login_serves(place: Place) -> None:
    """To the end of the access token; once the right is granted it is refreshed, without a restart."""
    place.store(place.endpoint.login("me", life=8.0))
    place.endpoint.life = 600.0
    broker = place.broker(RULES[:1]).start(service="provider/acme")
    missing = (
        "grant its account the verb get on leases, resourceNames equabot-refresh-llm with a Role in namespace"
        f" {place.namespace}"
    )
    broker.wait_for(lambda: missing in broker.log())
    assert place.presented == []
    broker.wait_healthy("provider/acme", serving=False)
    assert place.presented == []
    place.cluster.service_account(place.namespace, "broker", rules=RULES)
    broker.wait_healthy("provider/acme", within=40)
    assert [entry.verdict for entry in place.presented] == ["redeemed"]
    assert place.noted("pending-refresh") == ""


def test_refusal_is_stored_in_the_secret(place: Place) -> None:
    """By an annotation with no secret in it; the other broker does not ask again."""
    place.endpoint.faults = ["invalid_grant"]
    place.store(tokens := place.endpoint.login("me", life=-1.0))
    first = place.broker().start()
    eventually(lambda: "invalid_grant" in place.noted("reauth-required"))
    assert tokens["refresh"] not in json.dumps(place.secret()["metadata"]["annotations"])
    second = place.broker().start()
    for broker in (first, second):
        broker.wait_output("models", "status", "--plain", until=lambda printed: "reauth_required" in printed)
    assert len(place.presented) == 1
