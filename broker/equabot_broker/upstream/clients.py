"""Makes all HTTP clients, with the proxies and certificates that the environment names.

`httpx` raises when it makes a client for an IPv6 network in `NO_PROXY`, a SOCKS proxy, or a missing file of certificates. Here
that is a fault of the variable, and affects only requests that need it.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.upstream.proxying import Proxy, proxies

if TYPE_CHECKING:
    import httpx

_AGENT: Final = "equabot-broker"
_LARGEST: Final = 16 << 20
_FILE: Final = "SSL_CERT_FILE"
_DIRECTORY: Final = "SSL_CERT_DIR"


@dataclass(frozen=True, slots=True)
class Outside:
    """The fault of an environment variable, and what to do, without any part of its value."""

    variable: str
    message: str

    def __str__(self) -> str:
        return f"{self.variable} {self.message}"


class Unusable(Exception):
    """The environment prevents a request: which variable, why, what to do. Nothing was sent."""


def outside_faults(environ: Mapping[str, str] | None = None) -> Iterator[Outside]:
    """The faults in the environment (default: of this process) that prevent requests."""
    environ = _environment() if environ is None else environ
    for variable, message in proxies(environ).faults():
        yield Outside(variable, message)
    try:
        trust(environ)
    except Unusable as fault:
        variable, _, message = str(fault).partition(" ")
        yield Outside(variable, message)


def trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """The trusted certificates: `SSL_CERT_FILE`, else `SSL_CERT_DIR`, else the default authorities. Raises Unusable: it never
    trusts others than those named."""
    if file := environ.get(_FILE, ""):
        return ssl.create_default_context(cadata=_certificates(file))
    if directory := environ.get(_DIRECTORY, ""):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for place in directory.split(os.pathsep):
            if not os.path.isdir(place):  # noqa: PTH112 - it never raises
                raise Unusable(f"{_DIRECTORY} names {place}, which is not a readable directory: correct it, or unset it")
            context.load_verify_locations(capath=place)
        return context
    import certifi  # noqa: PLC0415 - comes with httpx, needed rarely

    return ssl.create_default_context(cafile=certifi.where())


def client(**options: Any) -> "httpx.AsyncClient":
    """A client without state: no redirect, no cookie, no kept connection. Blocks for a tenth of a second (imports,
    certificates). Raises Unusable."""
    import httpx  # noqa: PLC0415 - 10 MiB, for what is asked for rarely

    headers = {"User-Agent": _AGENT, **options.pop("headers", {})}
    return httpx.AsyncClient(
        transport=_transport(),
        trust_env=False,
        follow_redirects=False,
        headers=headers,
        # Cookies of one credential must not travel with another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        **options,
    )


def _environment() -> Mapping[str, str]:
    return os.environ  # noqa: TID251 - as every HTTP client reads these variables


def _certificates(file: str) -> str:
    try:
        text = read_whole(file, limit=_LARGEST).decode("ascii", "ignore")
        # With an empty text, the default authorities would be trusted.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except FileNotFoundError:
        why = "does not exist: correct it, or unset it"
    except Unreadable as unreadable:
        why = f"{unreadable.why}: {unreadable.remedy}"
    except (ssl.SSLError, ValueError):
        why = "holds no certificate in PEM form: put one there, or unset it"
    else:
        return text
    raise Unusable(f"{_FILE} names {file}, which {why}")


def _transport() -> "httpx.AsyncBaseTransport":
    import httpx  # noqa: PLC0415

    environ = _environment()
    found, context = proxies(environ), trust(environ)
    # The other side can close a kept connection at the moment of its use. Then it is not known whether it has read the
    # request.
    unkept = httpx.Limits(max_keepalive_connections=0)

    def through(proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        if proxy is None:
            return httpx.AsyncHTTPTransport(verify=context, limits=unkept, trust_env=False)
        try:
            server = httpx.Proxy(proxy.url, ssl_context=context if proxy.url.startswith("https") else None)
            return httpx.AsyncHTTPTransport(verify=context, limits=unkept, trust_env=False, proxy=server)
        except Exception:  # noqa: BLE001 - httpx raises various errors, whose text may have a password
            raise Unusable(f"{proxy.variable} cannot be used: write http://HOST:PORT") from None

    class Routing(httpx.AsyncBaseTransport):
        """Directly to the host, or through its proxy."""

        def __init__(self) -> None:
            self._ways: dict[str, httpx.AsyncHTTPTransport] = {}

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            proxy = found.of(request.url.scheme, request.url.host, request.url.port)
            if proxy is not None and proxy.fault:
                raise Unusable(f"{proxy.variable} {proxy.fault}")
            key = "" if proxy is None else proxy.url
            if key not in self._ways:
                self._ways[key] = through(proxy)
            return await self._ways[key].handle_async_request(request)

        async def aclose(self) -> None:
            for way in self._ways.values():
                await way.aclose()

    return Routing()
