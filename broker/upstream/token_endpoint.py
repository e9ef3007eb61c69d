"""OAuth token endpoints over HTTP. The only module that imports `httpx`, and only once something has to be refreshed."""

import asyncio
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from broker.domain.oauth import LARGEST, Answer, Blame, Failure, TokenRequest
from broker.domain.secret_value import SecretValue

if TYPE_CHECKING:
    import httpx

WITHIN: Final = 30.0
CONNECT_WITHIN: Final = 5.0
_AGENT: Final = "equabot-broker"
_LOST: Final = Failure(Blame.UNCERTAIN, "no_answer", "the token endpoint was asked, and its answer is lost")


class HttpTokenEndpoint:
    """Fulfils `broker.ports.TokenEndpoint`. Durations in seconds.

    One request, one connection, no second try, no redirect: what was sent once may be spent.
    """

    def __init__(self, *, within: float = WITHIN, connect_within: float = CONNECT_WITHIN) -> None:
        self._within = within
        self._connect_within = connect_within
        self._client: httpx.AsyncClient | None = None

    async def ask(self, request: TokenRequest) -> Answer | Failure:
        """The endpoint's answer, or why there is none. Never raises for anything that the endpoint or the network does, and
        nothing of what was sent or answered stands in a failure."""
        if self._client is None:
            # A tenth of a second of imports and certificates, which nobody else should wait for.
            self._client = await asyncio.to_thread(self._made)
        import httpx  # noqa: PLC0415 - lazily, see above

        where = _host(request.url)
        refused: list[Answer] = []
        try:
            async with asyncio.timeout(self._within):
                return await _asked(self._client, request, refused)
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
        except (httpx.HTTPError, TimeoutError, OSError):
            return refused[0] if refused else _LOST

    def _made(self) -> "httpx.AsyncClient":
        import httpx  # noqa: PLC0415 - lazily, see above

        return httpx.AsyncClient(
            follow_redirects=False,
            timeout=httpx.Timeout(self._within, connect=self._connect_within),
            # A connection that was kept may be closed by the other side at the very moment it is used, and nobody knows then
            # whether the request was read.
            limits=httpx.Limits(max_keepalive_connections=0),
            # What it learns of one login must not travel with another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers={"User-Agent": _AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )


async def _asked(client: "httpx.AsyncClient", request: TokenRequest, refused: list[Answer]) -> Answer:
    """The answer. A status that is no success counts without its body: it goes to `refused` before that is read."""
    fields = {name: value.reveal() if isinstance(value, SecretValue) else value for name, value in request.fields.items()}
    told = {"json": fields} if request.encoding == "json" else {"data": fields}
    async with client.stream("POST", request.url, headers=request.headers, **told) as response:  # type: ignore[arg-type]
        wait = response.headers.get("retry-after", "")
        if not response.is_success:
            refused.append(Answer(response.status_code, b"", wait))
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > LARGEST:
                break
        return Answer(response.status_code, bytes(body[: LARGEST + 1]), wait)


def _unreached(code: str, reason: str) -> Failure:
    return Failure(Blame.TRANSIENT, code, reason)


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
