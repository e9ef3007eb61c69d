"""OAuth token endpoints over HTTP. `httpx` is imported when the first token is refreshed."""

import asyncio
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import LARGEST, Blame, RefreshFailure, TokenAnswer, TokenRequest
from equabot_broker.telemetry.incidents import incident
from equabot_broker.upstream.clients import Unusable, client

if TYPE_CHECKING:
    import httpx

WITHIN: Final = 30.0
CONNECT_WITHIN: Final = 5.0
_LOST: Final = RefreshFailure(Blame.UNCERTAIN, "no_answer", "the token endpoint was asked, and its answer is lost")


class HttpTokenEndpoint:
    """Implements `ports.TokenEndpoint`. Durations are in seconds.

    One request on one connection, without retry or redirect: a token that was sent may be used up.
    """

    def __init__(self, *, within: float = WITHIN, connect_within: float = CONNECT_WITHIN) -> None:
        self._within = within
        self._connect_within = connect_within
        self._client: httpx.AsyncClient | None = None

    async def ask(self, request: TokenRequest) -> TokenAnswer | RefreshFailure:
        """The endpoint's answer, or a failure. Never raises for the endpoint, the network or the environment. A failure has no
        part of the request or the answer."""
        try:
            if self._client is None:
                # The first client takes a tenth of a second (imports, certificates), which no other task should wait for.
                self._client = await asyncio.to_thread(self._made)
        except Unusable as fault:
            return _unreached("environment", str(fault))
        except Exception as error:  # noqa: BLE001 - nothing was sent, so it may be tried again
            return _unreached("unexpected", str(incident("token_endpoint", _host(request.url), error)))
        return await self._ask(self._client, request)

    async def _ask(self, client: "httpx.AsyncClient", request: TokenRequest) -> TokenAnswer | RefreshFailure:
        import httpx  # noqa: PLC0415 - is there by now

        where = _host(request.url)
        refused: list[TokenAnswer] = []
        try:
            async with asyncio.timeout(self._within):
                return await _asked(client, request, refused)
        except (httpx.ConnectTimeout, httpx.PoolTimeout):
            return _unreached("unreachable", f"cannot connect to {where} within {self._connect_within:g} s")
        except httpx.ConnectError as error:
            if _is_about_trust(error):
                return _unreached("untrusted", f"the certificate of {where} is not trusted: SSL_CERT_FILE names further ones")
            return _unreached("unreachable", f"cannot connect to {where}")
        except httpx.ProxyError:
            return _unreached("unreachable", f"the proxy does not lead to {where}")
        except (httpx.InvalidURL, httpx.UnsupportedProtocol):
            return _unreached("unreachable", "the provider's token_url is not a URL of HTTP")
        except Unusable as fault:
            return _unreached("environment", str(fault))
        except (httpx.HTTPError, TimeoutError, OSError):
            return refused[0] if refused else _LOST
        except Exception as error:  # noqa: BLE001 - the request may have been read
            return refused[0] if refused else replace(_LOST, reason=str(incident("token_endpoint", where, error)))

    def _made(self) -> "httpx.AsyncClient":
        import httpx  # noqa: PLC0415 - lazily, see above

        return client(
            timeout=httpx.Timeout(self._within, connect=self._connect_within),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )


async def _asked(client: "httpx.AsyncClient", request: TokenRequest, refused: list[TokenAnswer]) -> TokenAnswer:
    """The answer. The body of an error status is not read: the status goes to `refused` before."""
    fields = {name: value.reveal() if isinstance(value, SecretValue) else value for name, value in request.fields.items()}
    encoded = {"json": fields} if request.encoding == "json" else {"data": fields}
    async with client.stream("POST", request.url, headers=request.headers, **encoded) as response:  # type: ignore[arg-type]
        wait = response.headers.get("retry-after", "")
        if not response.is_success:
            refused.append(TokenAnswer(response.status_code, b"", wait))
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LARGEST:
                break
        return TokenAnswer(response.status_code, bytes(body[: LARGEST + 1]), wait)


def _unreached(code: str, reason: str) -> RefreshFailure:
    return RefreshFailure(Blame.TRANSIENT, code, reason)


def _is_about_trust(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the token endpoint"
    except ValueError:
        return "the token endpoint"
