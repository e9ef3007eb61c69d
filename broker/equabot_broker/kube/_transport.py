"""Requests to one API server: sent once, answered within a deadline or not at all, and distinguished by what went wrong."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from equabot_broker.kube._client import adopt, make_client
from equabot_broker.kube._faults import ApiQuestion, KubeFault, malformed, refused, timed_out, too_large, unreachable, untrusted

if TYPE_CHECKING:
    import aiohttp
    from kubernetes.aio.client import Configuration

ApiObject = dict[str, Any]

_BODY_MAX: Final = 16 * 2**20
_LINE_MAX: Final = 8 * 2**20
_CONNECT_WITHIN: Final = 5.0
_ACCEPTED: Final = "application/json, */*;q=0.1"
"""What is no object of the API, such as the keys that sign tokens, is JSON under a name of its own."""
_BROKEN: Final = (OSError, ValueError, EOFError)
"""What the HTTP library raises where a connection breaks, in addition to errors of its own."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What is sent. `params` become the query as they are."""

    method: str
    path: str
    params: Mapping[str, str]
    body: ApiObject | None = field(default=None, repr=False)
    content_type: str = "application/json"

    @property
    def asked(self) -> ApiQuestion:
        """The same in words."""
        return ApiQuestion.of(self.method, self.path, self.params)


class Transport:
    """The way to one API server. Every method raises KubeFault and nothing else, but the constructor.

    That raises OSError or ValueError for certificates that cannot be used, whose words may hold a piece of them.
    """

    def __init__(self, configuration: "Configuration") -> None:
        self._client = make_client(configuration)

    @property
    def server(self) -> str:
        """The server's URL."""
        return str(self._client.configuration.host)

    def adopt(self, configuration: "Configuration") -> None:
        """Goes on as another configuration says, as far as its certificates can be used."""
        with suppress(OSError, ValueError):
            adopt(self._client, configuration)

    async def close(self) -> None:
        """Ends its connections."""
        await self._client.close()

    async def token(self) -> str:
        """The header with which this process says who it is; empty where a certificate says it."""
        try:
            settings = await self._client.configuration.auth_settings()
        except Exception:  # noqa: BLE001 - whatever the package raises where the file is not as it should be
            raise KubeFault(
                "the service account's token cannot be read again: see that it is still mounted", reason="Unconfigured"
            ) from None
        return (settings.get("BearerToken", {}).get("value") or "").strip()

    async def send(self, request: ApiRequest, *, within: float, silence: float | None = None) -> "aiohttp.ClientResponse":
        """An answer that is a success, with its body still to come, of which no two pieces are `silence` seconds apart."""
        try:
            async with asyncio.timeout(within):
                response = await self._answer(request, silence)
                if not response.ok:
                    raise await self._refusal(response, request.asked)
                return response
        except TimeoutError:
            raise timed_out(request.asked, self.server, within) from None

    async def read(self, response: "aiohttp.ClientResponse", asked: ApiQuestion) -> ApiObject:
        """The answer's body, of 16 MiB at most."""
        return self._understood(await self._body(response, asked), asked)

    async def lines(self, response: "aiohttp.ClientResponse", asked: ApiQuestion) -> AsyncGenerator[ApiObject, None]:
        """The answer's lines, of 8 MiB at most, until it ends or breaks."""
        import aiohttp  # noqa: PLC0415 - loaded with the client

        rest = bytearray()
        pieces = response.content.iter_any()
        while True:
            try:
                piece = await anext(pieces)
            except (StopAsyncIteration, aiohttp.ClientError, *_BROKEN):
                return
            rest += piece
            if b"\n" in piece:
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    if line.strip():
                        yield self._understood(line, asked)
            if len(rest) > _LINE_MAX:
                raise too_large(asked, self.server, _LINE_MAX)

    async def _answer(self, request: ApiRequest, silence: float | None) -> "aiohttp.ClientResponse":
        import aiohttp  # noqa: PLC0415 - loaded with the client
        import yarl  # noqa: PLC0415

        query = f"?{urlencode(request.params)}" if request.params else ""
        url = yarl.URL(f"{self.server}{request.path}{query}", encoded=True)
        headers = {"Accept": _ACCEPTED, "Content-Type": request.content_type, "User-Agent": self._client.user_agent}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_WITHIN, sock_read=silence)
        try:
            if token := await self.token():
                headers["Authorization"] = token
            answer = await self._client.rest_client.request(
                request.method, url, headers, body=request.body, _request_timeout=limits
            )
        except (aiohttp.ClientError, *_BROKEN) as error:
            raise self._lost(error, request.asked) from None
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _refusal(self, response: "aiohttp.ClientResponse", asked: ApiQuestion) -> KubeFault:
        said: ApiObject = {}
        with suppress(KubeFault):
            said = await self.read(response, asked)
        response.release()
        word = said.get("reason") if said.get("kind") == "Status" else None
        return refused(asked, self.server, status=response.status, word=word, retry_after=response.headers.get("Retry-After"))

    async def _body(self, response: "aiohttp.ClientResponse", asked: ApiQuestion) -> bytes:
        import aiohttp  # noqa: PLC0415 - loaded with the client

        body = bytearray()
        try:
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _BODY_MAX:
                    response.close()
                    raise too_large(asked, self.server, _BODY_MAX)
        except (aiohttp.ClientError, *_BROKEN) as error:
            raise self._lost(error, asked) from None
        return bytes(body)

    def _understood(self, text: bytes | bytearray, asked: ApiQuestion) -> ApiObject:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise malformed(asked, self.server)
        return found

    def _lost(self, error: Exception, asked: ApiQuestion) -> KubeFault:
        """What became of a connection, out of what the HTTP library makes of it."""
        if isinstance(error, TimeoutError):
            return unreachable(asked, self.server, "no answer in time")
        causes = (getattr(error, "certificate_error", None), getattr(error, "os_error", None), error.__cause__, error)
        cause = next((cause for cause in causes if isinstance(cause, OSError)), error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(asked, self.server)
        if isinstance(cause, ssl.SSLError):
            return unreachable(asked, self.server, "TLS fails")
        number = getattr(cause, "errno", None) or 0
        why = os.strerror(number) if number > 0 else getattr(cause, "strerror", None)
        return unreachable(asked, self.server, why or type(error).__name__)
