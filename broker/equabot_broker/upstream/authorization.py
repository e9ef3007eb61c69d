"""The requests of a login: redeems a code, or begins a device login and waits for it."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from equabot_broker.domain.provider import Provider
from equabot_broker.oauth.authorization import (
    Attempt,
    AuthorizationRefusal,
    Code,
    Device,
    code_request,
    device_request,
    poll_request,
    read_device,
    read_pending,
)
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, TokenAnswer, TokenRequest, Tokens, read_answer


class Endpoint(Protocol):
    """The transport: `token_endpoint.HttpTokenEndpoint`."""

    async def ask(self, request: TokenRequest) -> TokenAnswer | RefreshFailure:
        """The answer, or the failure."""


async def redeem(endpoint: Endpoint, provider: Provider, attempt: Attempt, code: Code, *, now: Callable[[], float]) -> Tokens:
    """The tokens for a code. Raises AuthorizationRefusal."""
    return _granted(await endpoint.ask(code_request(provider, attempt, code)), now())


async def begin_device(endpoint: Endpoint, provider: Provider, attempt: Attempt) -> Device:
    """Begins a device login. Raises AuthorizationRefusal."""
    answer = await endpoint.ask(device_request(provider, attempt))
    if isinstance(answer, RefreshFailure):
        raise AuthorizationRefusal(answer.reason)
    return read_device(answer)


async def await_device(
    endpoint: Endpoint,
    provider: Provider,
    attempt: Attempt,
    device: Device,
    *,
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> Tokens:
    """The tokens, when the user has logged in. Asks again if no answer comes. Raises AuthorizationRefusal."""
    waited, interval = 0.0, device.interval
    while waited < device.lives:
        await sleep(interval)
        waited += interval
        answer = await endpoint.ask(poll_request(provider, attempt, device))
        if isinstance(answer, TokenAnswer):
            pause = read_pending(answer, interval=interval)
            if pause is None:
                return _granted(answer, now())
            interval = pause
        elif answer.blame is Blame.PERMANENT:
            raise AuthorizationRefusal(answer.reason)
    raise AuthorizationRefusal("the login was not completed in time: start again")


def _granted(answer: TokenAnswer | RefreshFailure, now: float) -> Tokens:
    found = answer if isinstance(answer, RefreshFailure) else read_answer(answer, now=now)
    if isinstance(found, RefreshFailure):
        raise AuthorizationRefusal(found.reason)
    return found
