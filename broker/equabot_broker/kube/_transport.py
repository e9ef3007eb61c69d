"""Requests to one API server: each is sent once and has a deadline. Each kind of failure has its own fault."""

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
"""Some responses, such as the keys that sign tokens, are JSON with a media type of their own."""
_BROKEN: Final = (OSError, ValueError, EOFError)
"""What the HTTP library raises for a broken connection, in addition to its own errors."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request. `params` become the query."""

    method: str
    path: str
    params: Mapping[str, str]
    body: ApiObject | None = field(default=None, repr=False)
    content_type: str = "application/json"

    @property
    def asked(self) -> ApiQuestion:
        """The request in the terms of RBAC."""
        return ApiQuestion.of(self.method, self.path, self.params)


class Transport:
    """Connections to one API server. Methods raise only KubeFault.

    The constructor raises OSError or ValueError if a certificate cannot be used. Their messages may contain a part of it.
    """

    def __init__(self, configuration: "Configuration") -> None:
        self._client = make_client(configuration)

    @property
    def server(self) -> str:
        """The server's URL."""
        return str(self._client.configuration.host)

    def adopt(self, configuration: "Configuration") -> None:
        """Uses another configuration from now on. Certificates that cannot be used are ignored."""
        with suppress(OSError, ValueError):
            adopt(self._client, configuration)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def token(self) -> str:
        """The value of the Authorization header; empty if the process authenticates with a certificate."""
        try:
            settings = await self._client.configuration.auth_settings()
        except Exception:  # noqa: BLE001 - the package raises many types for a malformed file
            raise KubeFault(
                "the token of the service account cannot be read again: check that it is still mounted", reason="Unconfigured"
            ) from None
        return (settings.get("BearerToken", {}).get("value") or "").strip()

    async def send(self, request: ApiRequest, *, within: float, silence: float | None = None) -> "aiohttp.ClientResponse":
        """A successful response whose body is not read yet. The body fails after `silence` seconds without a byte."""
        try:
            async with asyncio.timeout(within):
                response = await self._answer(request, silence)
                if not response.ok:
                    raise await self._refusal(response, request.asked)
                return response
        except TimeoutError:
            raise timed_out(request.asked, self.server, within) from None

    async def read(self, response: "aiohttp.ClientResponse", asked: ApiQuestion) -> ApiObject:
        """The body of the response, at most 16 MiB."""
        return self._decoded(await self._body(response, asked), asked)

    async def lines(self, response: "aiohttp.ClientResponse", asked: ApiQuestion) -> AsyncGenerator[ApiObject, None]:
        """The lines of the response, at most 8 MiB each, until it ends or the connection breaks."""
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
                        yield self._decoded(line, asked)
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
            raise self._fault_of(error, request.asked) from None
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
            raise self._fault_of(error, asked) from None
        return bytes(body)

    def _decoded(self, text: bytes | bytearray, asked: ApiQuestion) -> ApiObject:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise malformed(asked, self.server)
        return found

    def _fault_of(self, error: Exception, asked: ApiQuestion) -> KubeFault:
        """The fault for an error of the HTTP library."""
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
