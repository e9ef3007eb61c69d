"""A login's conversation over real HTTP."""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.authorization import ENTROPY, Attempt, AuthorizationRefusal, Code, begin
from equabot_broker.providers import PROVIDERS
from equabot_broker.upstream.authorization import await_device, begin_device, redeem
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint
from tests.fakes.authorization_server import ACCESS, REFRESH, AuthorizationServer


class Patience:
    """A clock that advances when a task waits."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)

    def now(self) -> float:
        return 1000.0


@pytest.fixture
def vendor() -> Iterator[AuthorizationServer]:
    with AuthorizationServer() as server:
        yield server


@pytest.fixture
def provider(vendor: AuthorizationServer) -> Provider:
    known, url = PROVIDERS["qwen-portal"], vendor.url
    return replace(known, client_id=vendor.client_id, token_url=f"{url}/token", device_url=f"{url}/device")


def attempt(redirect_url: str = "") -> Attempt:
    return begin(os.urandom(ENTROPY), redirect_url=redirect_url)


async def test_a_device_is_asked_for_until_it_is_confirmed(vendor: AuthorizationServer, provider: Provider) -> None:
    """At the interval that the vendor gave; an answer that fails is asked for again."""
    vendor.pending, vendor.failing = 2, 1
    patience, endpoint, mine = Patience(), HttpTokenEndpoint(), attempt()
    device = replace(await begin_device(endpoint, provider, mine), interval=3.0)
    tokens = await await_device(endpoint, provider, mine, device, now=patience.now, sleep=patience.sleep)
    assert (tokens.access, tokens.refresh) == (SecretValue(ACCESS), SecretValue(REFRESH))
    assert tokens.expires_at == 1000.0 + 28800
    assert patience.waited == [3.0] * 4


async def test_an_unconfirmed_device_login_ends(vendor: AuthorizationServer, provider: Provider) -> None:
    """When its code does."""
    vendor.pending = 10**6
    patience, endpoint, mine = Patience(), HttpTokenEndpoint(), attempt()
    device = replace(await begin_device(endpoint, provider, mine), interval=10.0, lives=35.0)
    with pytest.raises(AuthorizationRefusal, match="the login was not completed in time"):
        await await_device(endpoint, provider, mine, device, now=patience.now, sleep=patience.sleep)
    assert sum(patience.waited) == 40.0


async def test_a_verifier_of_another_login_redeems_nothing(vendor: AuthorizationServer, provider: Provider) -> None:
    """That is what PKCE is for."""
    patience, endpoint = Patience(), HttpTokenEndpoint()
    device = await begin_device(endpoint, provider, attempt())
    with pytest.raises(AuthorizationRefusal, match="invalid_grant"):
        await await_device(endpoint, provider, attempt(), device, now=patience.now, sleep=patience.sleep)


async def test_an_endpoint_that_is_away_is_reported(provider: Provider) -> None:
    """The code may be used again: nothing was redeemed."""
    away = replace(provider, token_url="http://127.0.0.1:1/token")
    with pytest.raises(AuthorizationRefusal, match=r"cannot connect to 127\.0\.0\.1"):
        await redeem(HttpTokenEndpoint(), away, attempt("http://x"), Code(SecretValue("c")), now=Patience().now)
