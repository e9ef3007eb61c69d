"""Callers' tokens on a real API server: what it issues and takes back, by both ways of checking."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from equabot_broker.domain.callers import CallerProof, Callers
from equabot_broker.domain.errors import BrokerError, IdentityUnchecked, PolicyDenied, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.published_keys import KeysOfApi, PublishedKeys
from equabot_broker.identity.service_account import Check, ServiceAccounts
from equabot_broker.identity.token_review import TokenReviews
from equabot_broker.kube.api import KubeApi
from tests.fakes.clock import FakeClock
from tests.kubernetes.api import Api
from tests.kubernetes.cluster import Cluster

REVIEWS = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
WAYS = ("token_review", "published_keys")


class Broker:
    """A broker's half of it: with a service account of its own in a namespace of the cluster, on a clock that a test moves."""

    def __init__(self, api: Api, kube: KubeApi, namespace: str, *, way: str) -> None:
        self.clock = FakeClock(now=datetime.now(UTC).timestamp())
        self.namespace = namespace
        self._api = api
        check: Check = (
            TokenReviews(kube, audience="equabot") if way == WAYS[0] else PublishedKeys(KeysOfApi(kube), clock=self.clock)
        )
        callers = Callers(accounts={f"{namespace}/reviewer": "reviewer"})
        self._accounts = ServiceAccounts(check, callers, clock=self.clock, audience="equabot")

    def token(self, name: str = "reviewer", *, audience: str = "equabot") -> str:
        return self._api.token(self.namespace, name, audiences=[audience] if audience else [])

    async def agent_of(self, token: str) -> str:
        return (await self._accounts.identify(CallerProof(token=SecretValue(token)))).agent

    async def lets_in(self, token: str) -> bool:
        try:
            return await self.agent_of(token) == "reviewer"
        except BrokerError:
            return False

    async def refusal(self, token: str) -> BrokerError:
        with pytest.raises(BrokerError) as raised:
            await self.agent_of(token)
        assert token[:24] not in f"{raised.value!r} {raised.value.message}"
        return raised.value


@asynccontextmanager
async def broker(api: Api, namespace: str, directory: Path, *, way: str, may_review: bool = True) -> AsyncIterator[Broker]:
    account = api.service_account(namespace, "broker", cluster_rules=[REVIEWS] if may_review else [])
    api.service_account(namespace, "reviewer")
    async with AsyncExitStack() as stack:
        kube = KubeApi(kubeconfig=api.kubeconfig(directory / "kubeconfig", user=account.user, namespace=namespace))
        await kube.open()
        stack.push_async_callback(kube.close)
        yield Broker(api, kube, namespace, way=way)


@pytest.mark.parametrize("way", WAYS)
async def test_a_projected_token_says_which_agent_calls(cluster: Api, namespace: str, tmp_path: Path, way: str) -> None:
    """One for our audience; not one for the API itself, nor for somebody else."""
    async with broker(cluster, namespace, tmp_path, way=way) as checking:
        assert await checking.agent_of(checking.token()) == "reviewer"
        for audience in ("", "another"):
            refused = await checking.refusal(checking.token(audience=audience))
            assert isinstance(refused, Unidentified)
            assert "not for audience 'equabot'" in refused.message


@pytest.mark.parametrize("way", WAYS)
async def test_account_of_another_namespace_is_refused(cluster: Api, namespace: str, tmp_path: Path, way: str) -> None:
    """Nor is another account of the same namespace."""
    async with broker(cluster, namespace, tmp_path, way=way) as checking:
        elsewhere = cluster.namespace()
        cluster.service_account(elsewhere, "reviewer")
        for token in (cluster.token(elsewhere, "reviewer", audiences=["equabot"]), checking.token("broker")):
            refused = await checking.refusal(token)
            assert type(refused) is PolicyDenied
            assert "does not map to an agent" in refused.message


@pytest.mark.parametrize("way", WAYS)
async def test_altered_token_is_refused(cluster: Api, namespace: str, tmp_path: Path, way: str) -> None:
    """Another account's name over the signature of ours, and a signature with a byte changed."""
    async with broker(cluster, namespace, tmp_path, way=way) as checking:
        (head, said, signature), other = checking.token().split("."), checking.token("broker").split(".")
        changed = ("B" if signature[0] != "B" else "C") + signature[1:]
        for forged in (f"{head}.{said}.{other[2]}", f"{head}.{said}.{changed}"):
            assert type(await checking.refusal(forged)) is Unidentified


async def test_a_deleted_account_is_refused_within_a_minute(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """Its token has an hour left; made again, the account of that name is another one."""
    async with broker(cluster, namespace, tmp_path, way="token_review") as checking:
        token = checking.token()
        await checking.agent_of(token)
        cluster.delete("ServiceAccount", "reviewer", namespace=namespace)
        assert await checking.agent_of(token) == "reviewer"
        async with asyncio.timeout(60):
            while await checking.lets_in(token):  # the server itself remembers a good token for ten seconds
                await asyncio.sleep(0.1)
                checking.clock.advance(60)
        assert "does not accept the token" in (await checking.refusal(token)).message
        cluster.service_account(namespace, "reviewer")
        checking.clock.advance(60)
        assert type(await checking.refusal(token)) is Unidentified
        assert await checking.agent_of(checking.token()) == "reviewer"


async def test_published_keys_know_nothing_of_deleted_accounts(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """As the guide says: what is signed is good to its end."""
    async with broker(cluster, namespace, tmp_path, way="published_keys") as checking:
        token = checking.token()
        cluster.delete("ServiceAccount", "reviewer", namespace=namespace)
        for _ in range(2):
            assert await checking.agent_of(token) == "reviewer"
            checking.clock.advance(60)
        checking.clock.advance(3600)
        assert "has expired" in (await checking.refusal(token)).message


async def test_the_right_to_ask_is_named_where_it_is_missing(cluster: Api, namespace: str, tmp_path: Path) -> None:
    """And once it is given the next caller is let in, without a restart."""
    async with broker(cluster, namespace, tmp_path, way="token_review", may_review=False) as checking:
        token = checking.token()
        refused = await checking.refusal(token)
        assert isinstance(refused, IdentityUnchecked)
        assert "create" in refused.message
        assert "tokenreviews" in refused.message
        cluster.service_account(namespace, "broker", cluster_rules=[REVIEWS])
        async with asyncio.timeout(60):
            while not await checking.lets_in(token):  # RBAC is followed by the server, not read for each request
                await asyncio.sleep(0.02)
                checking.clock.advance(1)


@pytest.mark.parametrize("way", WAYS)
async def test_known_callers_are_accepted_without_an_api_server(
    start_cluster: Callable[[], Cluster], tmp_path: Path, way: str
) -> None:
    """Nobody else; and everybody again once it is back."""
    cluster = await asyncio.to_thread(start_cluster)
    async with broker(cluster, cluster.namespace(), tmp_path, way=way) as checking:
        known, new = checking.token(), checking.token("reviewer")
        assert await checking.agent_of(known) == "reviewer"
        await asyncio.to_thread(cluster.kill)
        checking.clock.advance(59)
        assert await checking.agent_of(known) == "reviewer"
        if way == "token_review":
            assert isinstance(await checking.refusal(new), IdentityUnchecked)
            checking.clock.advance(1)
            refused = await checking.refusal(known)
            assert isinstance(refused, IdentityUnchecked)
            assert "cannot be checked now" in refused.message
        else:
            assert await checking.agent_of(new) == "reviewer", "keys that were read hold for an hour"
        await asyncio.to_thread(cluster.restart)
        checking.clock.advance(5)
        assert await checking.agent_of(known) == "reviewer"
