"""The API server's word on a token, through the real client and over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.domain.errors import IdentityUnchecked, Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.identity.account_tokens import AccountToken, read_token
from equabot_broker.identity.token_review import TokenReviews
from equabot_broker.kube.api import KubeApi
from tests.fakes.issuer import Issuer
from tests.fakes.token_reviewer import TokenReviewer, accepted
from tests.rpc.serving import eventually

TOKEN = Issuer("ES256").token()
REVIEWER = "system:serviceaccount:agents:reviewer"


def said() -> AccountToken:
    return read_token(SecretValue(TOKEN))


@pytest.fixture
def server() -> Iterator[TokenReviewer]:
    with TokenReviewer() as started:
        yield started


@pytest.fixture
async def reviews(server: TokenReviewer, tmp_path: Path) -> AsyncIterator[TokenReviews]:
    api = KubeApi(kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
    await api.open()
    yield TokenReviews(api, audience="equabot")
    await api.close()


async def test_the_account_is_the_one_that_the_server_names(server: TokenReviewer, reviews: TokenReviews) -> None:
    """And not the one that the token says; asked for our audience alone."""
    server.statuses[TOKEN] = accepted("system:serviceaccount:other:another", "equabot")
    assert await reviews.account(said()) == "other/another"
    ((path, body),) = server.asked
    assert path == "/apis/authentication.k8s.io/v1/tokenreviews"
    assert body["spec"] == {"token": TOKEN, "audiences": ["equabot"]}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "does not accept the token"),
        ({"authenticated": False, "user": {"username": REVIEWER}, "audiences": ["equabot"]}, "does not accept"),
        ({"authenticated": "true", "user": {"username": REVIEWER}, "audiences": ["equabot"]}, "does not accept"),
        ({"authenticated": True, "user": {"username": REVIEWER}}, "does not confirm that the token is for audience 'equabot'"),
        (accepted(REVIEWER), "does not confirm"),
        ({"authenticated": True, "user": {"username": REVIEWER}, "audiences": "equabot.example"}, "does not confirm"),
        (accepted(REVIEWER, "https://kubernetes.default.svc"), "does not confirm"),
        (accepted("kubernetes-admin", "equabot"), "not that of a service account"),
        ({"authenticated": True, "user": "x", "audiences": ["equabot"]}, "not that of a service account"),
        ({"authenticated": True, "audiences": ["equabot"]}, "not that of a service account"),
    ],
)
async def test_what_is_not_wholly_confirmed_is_refused(
    server: TokenReviewer, reviews: TokenReviews, status: Mapping[str, Any], words: str
) -> None:
    """A server that knows nothing of audiences says none: its yes is then worth nothing here."""
    server.statuses[TOKEN] = status
    with pytest.raises(Unidentified, match=words) as raised:
        await reviews.account(said())
    assert "canary" not in raised.value.message


@pytest.mark.parametrize(("code", "reason"), [(403, "Forbidden"), (500, "InternalError"), (429, "TooManyRequests")])
async def test_a_server_without_an_answer_confirms_nothing(
    server: TokenReviewer, reviews: TokenReviews, code: int, reason: str
) -> None:
    """Its fault is reported with what to do, in our own words, and without any part of the token."""
    server.refusal = (code, reason)
    with pytest.raises(IdentityUnchecked, match="tokens cannot be checked now: ") as raised:
        await reviews.account(said())
    assert "tokenreviews" in raised.value.message
    assert "canary" not in raised.value.message
    assert TOKEN[:16] not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}"


async def test_a_server_that_is_away_is_reported(tmp_path: Path) -> None:
    """The server has stopped."""
    with TokenReviewer() as server:
        api = KubeApi(kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
        await api.open()
    with pytest.raises(IdentityUnchecked, match="cannot be checked now"):
        await TokenReviews(api, audience="equabot").account(said())
    await api.close()


async def test_a_server_that_is_slow_is_not_waited_for(server: TokenReviewer, tmp_path: Path) -> None:
    """The deadline covers the answer and the wait for a turn to ask: a flood of strangers' tokens delays no caller long."""
    api = KubeApi(kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
    await api.open()
    reviews = TokenReviews(api, audience="equabot", within=0.2)
    server.going.clear()
    async with asyncio.timeout(60):
        refused = await asyncio.gather(*(reviews.account(said()) for _ in range(40)), return_exceptions=True)
    assert {type(error) for error in refused} == {IdentityUnchecked}
    await api.close()


async def test_a_flood_of_tokens_asks_a_bounded_number_of_questions_at_once(server: TokenReviewer, tmp_path: Path) -> None:
    """The others wait for their turn, and are asked about when there is room."""
    api = KubeApi(kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"))
    await api.open()
    reviews = TokenReviews(api, audience="equabot", within=60)
    server.going.clear()
    flood = asyncio.gather(*(reviews.account(said()) for _ in range(40)), return_exceptions=True)
    await eventually(lambda: len(server.asked) == 16)
    server.going.set()
    await flood
    assert (len(server.asked), server.at_once) == (40, 16)
    await api.close()
