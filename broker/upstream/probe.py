"""Credentials tried on their providers: one small call each, a few at a time, no second try."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from broker.domain.probing import LARGEST, Found, Request, Verdict, judge

if TYPE_CHECKING:
    import httpx

WITHIN: Final = 8.0
AT_ONCE: Final = 2


async def probe(requests: Mapping[str, Request], *, within: float = WITHIN, at_once: int = AT_ONCE) -> Mapping[str, Found]:
    """What every request came to, by its name; `within` seconds for each. What a provider or the network does never raises."""
    import httpx  # noqa: PLC0415  (10 MiB, for a command that is asked for rarely)

    found: dict[str, Found] = {}
    turns = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(follow_redirects=False, timeout=within, headers={"User-Agent": "equabot-broker"}) as client:

        async def one(name: str, request: Request) -> None:
            async with turns:
                found[name] = await _asked(client, request, within)

        async with asyncio.TaskGroup() as group:
            for name, request in requests.items():
                group.create_task(one(name, request))
    return {name: found[name] for name in requests}


async def _asked(client: "httpx.AsyncClient", request: Request, within: float) -> Found:
    import httpx  # noqa: PLC0415  (is there by now)

    headers = {"Content-Type": "application/json", **request.headers}
    body = bytearray()
    try:
        async with (
            asyncio.timeout(within),
            client.stream("POST", request.url, content=request.body, headers=headers) as response,
        ):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST:
                    break
            return judge(response.status_code, bytes(body))
    except (TimeoutError, httpx.TimeoutException):
        return Found(Verdict.TIMEOUT, f"no answer within {within:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Its text may hold the request.
        return Found(Verdict.UNKNOWN, f"the provider cannot be reached ({type(error).__name__})")
