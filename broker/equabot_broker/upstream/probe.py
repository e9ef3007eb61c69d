"""Tests credentials on their providers: one small call each, a few at a time, without retries."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.credentials import headers
from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog
from equabot_broker.telemetry.incidents import incident
from equabot_broker.upstream.clients import Unusable, client
from equabot_broker.upstream.probe_requests import LARGEST, ProbeRequest, cheapest, judge, request

if TYPE_CHECKING:
    import httpx

WITHIN: Final = 8.0
AT_ONCE: Final = 2


async def probe(
    requests: Mapping[str, ProbeRequest], *, within: float = WITHIN, at_once: int = AT_ONCE
) -> Mapping[str, ProbeResult]:
    """The results by name; `within` seconds for each request. Never raises for an answer or for the network."""
    found: dict[str, ProbeResult] = {}
    turns = asyncio.Semaphore(at_once)
    try:
        made = await asyncio.to_thread(client, timeout=within)
    except Exception as error:  # noqa: BLE001 - the last handler of the port
        return dict.fromkeys(requests, _unasked(error, "probe"))
    async with made:

        async def one(name: str, request: ProbeRequest) -> None:
            async with turns:
                found[name] = await _asked(made, request, within)

        async with asyncio.TaskGroup() as group:
            for name, request in requests.items():
                group.create_task(one(name, request))
    return {name: found[name] for name in requests}


class HttpProbes:
    """Implements `ports.Probes`. Asks nothing unless it is `allowed`."""

    def __init__(self, catalog: Catalog, *, allowed: bool = True, within: float = WITHIN) -> None:
        self._catalog = catalog
        self._allowed = allowed
        self._within = within
        self._client: httpx.AsyncClient | None = None

    def apply(self, catalog: Catalog, *, allowed: bool) -> None:
        """Applies a new configuration to the next question."""
        self._catalog, self._allowed = catalog, allowed

    def possible(self, profile: Profile, about: Outcome) -> bool:
        """Whether a probe of the provider is known."""
        return self._made(profile, about) is not None

    async def probe(self, profile: Profile, about: Outcome) -> ProbeResult:
        """The result of one small request. Never raises for an answer or for the network."""
        made = self._made(profile, about)
        if made is None:
            return ProbeResult(Verdict.NO_MODEL)
        try:
            if self._client is None:
                # The first client takes a tenth of a second (imports, certificates), which no request should wait for.
                self._client = await asyncio.to_thread(client, timeout=self._within)
        except Exception as error:  # noqa: BLE001 - the last handler of the port
            return _unasked(error, profile.provider)
        found = await _asked(self._client, made, self._within)
        if found.verdict is not Verdict.AUTH or found.sure:
            return found
        # A key without the right to list models may have the right to use one.
        small = self._made(profile, Outcome.BILLING)
        return found if small is None or small == made else await _asked(self._client, small, self._within)

    def _made(self, profile: Profile, about: Outcome) -> ProbeRequest | None:
        provider = self._catalog.providers.get(profile.provider)
        if not self._allowed or provider is None or profile.secret is None:
            return None
        carried, url = headers(provider, profile, profile.secret), provider.base_url
        if about is Outcome.BILLING:
            return request(provider, model=provider.probe_model, base_url=url, headers=carried)
        return cheapest(provider, base_url=url, headers=carried)


async def _asked(client: "httpx.AsyncClient", request: ProbeRequest, within: float) -> ProbeResult:
    import httpx  # noqa: PLC0415  (is there by now)

    headers = {"Content-Type": "application/json", **request.headers}
    body = bytearray()
    try:
        async with (
            asyncio.timeout(within),
            client.stream(request.method, request.url, content=request.body, headers=headers) as response,
        ):
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > LARGEST:
                    break
            return judge(response.status_code, bytes(body))
    except (TimeoutError, httpx.TimeoutException):
        return ProbeResult(Verdict.TIMEOUT, f"no answer within {within:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # The text of the error may have the request.
        return ProbeResult(Verdict.UNKNOWN, f"the provider cannot be reached ({type(error).__name__})")
    except Exception as error:  # noqa: BLE001 - the last handler of the port
        return _unasked(error, "probe")


def _unasked(error: Exception, subject: str) -> ProbeResult:
    """The provider was not asked, or its answer was not understood: the credential remains unknown."""
    why = error if isinstance(error, Unusable) else incident("probe", subject, error)
    return ProbeResult(Verdict.UNKNOWN, f"the provider cannot be asked: {why}")
