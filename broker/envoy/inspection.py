"""A request as an agent sent it: who it may not come from, where it leads, and the token in it, wherever an SDK has put it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, unquote_plus

from broker.domain import lease_tokens
from broker.domain.provider import Catalog, Provider
from broker.domain.requests import target_fault
from broker.envoy.refusals import Refused

_USUAL: Final = ("authorization", "x-api-key", "x-goog-api-key", "api-key", "proxy-authorization")
"""Where SDKs put keys, whatever the vendor."""
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-real-ip", "via")
_ANOTHER: Final = ("x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url")
"""In which some servers let a request say that it is another one."""
_HOPS: Final = frozenset({"upgrade", "close", "keep-alive", ""})
_PORT: Final = re.compile(r":[0-9]*\Z")
_KEY: Final = re.compile(r"\$?key|api[_-]?key|subscription-key|(?:access|auth|bearer|oauth)[_-]?token", re.IGNORECASE)
"""The parameters in which vendors take credentials, beside the header or before it."""
_IN_PROTOCOL: Final = re.compile(rf"\b(?:api[_-]?key|token|bearer|organization|project)\b|{lease_tokens.PREFIX}", re.IGNORECASE)
"""And what they take in the name of a WebSocket's protocol, from browsers, which can set no header."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of which provider: `path` as it stands behind its `base_url`. `token` is what was shown: of the right form,
    and maybe of nobody."""

    provider: Provider
    path: str
    token: str = field(repr=False)


class Inspection:
    """Looks at requests. `names` are the hosts by which agents call the gateway, beside this machine's own."""

    def __init__(self, catalog: Catalog, names: Iterable[str] = ()) -> None:
        self._catalog = catalog
        written = (f"[{name}]" if ":" in name else name.lower() for name in names if name)
        self._hosts = frozenset(("127.0.0.1", "[::1]", "localhost", *written))
        self._places = {provider.id: _places(provider) for provider in catalog.providers.values()}
        self._schemes = {provider.id: _schemes(provider) for provider in catalog.providers.values()}

    def places(self, provider: Provider) -> tuple[str, ...]:
        """The headers in which a token may be, in lower case."""
        return self._places[provider.id]

    def provider(self, target: str, named: str) -> Provider:
        """Where the request leads: to the provider that its route names, which its path names as well. Raises Refused."""
        first = target.partition("?")[0].split("/", 2)[1:2]
        provider = self._catalog.providers.get(named or "".join(first))
        if provider is None or [provider.id] != first:
            raise Refused(
                404,
                "PROVIDER_UNKNOWN",
                "no provider of the gateway is at this path: it begins with /<provider>/",
            )
        return provider

    def asked(self, provider: Provider, target: str, host: str, headers: Mapping[str, str]) -> Asked:
        """The request, fit to be decided about. Names of headers are in lower case. Raises Refused."""
        self._refuse_strangers(host, headers)
        path, _, query = target.partition("?")
        if fault := target_fault(path, query):
            raise Refused(403, "INVALID_ARGUMENT", fault)
        if any(map(headers.__contains__, _ANOTHER)):
            raise Refused(403, "INVALID_ARGUMENT", f"a request is what its first line says: none of {', '.join(_ANOTHER)}")
        hops = headers.get("connection", "")
        if hops and not _HOPS.issuperset(word.strip() for word in hops.lower().split(",")):
            raise Refused(403, "INVALID_ARGUMENT", "Connection names a header, which would be lost on the way to the provider")
        if query and _holds_key(query):
            raise Refused(401, "TOKEN_IN_QUERY", "a query is no place for a key or a token: send it in a header")
        if _IN_PROTOCOL.search(headers.get("sec-websocket-protocol", "")):
            raise Refused(401, "KEY_REFUSED", "a WebSocket's protocol is no place for a key: send the lease token in a header")
        return Asked(provider, path[len(provider.id) + 1 :] or "/", self._token(provider, headers))

    def _refuse_strangers(self, host: str, headers: Mapping[str, str]) -> None:
        """A page in a browser can make it send requests to this machine, but not without these headers; and can make a name of
        its own lead here, which then is the host."""
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise Refused(403, "BROWSER_REFUSED", "this gateway is not for pages in a browser")
        if host and _name(host) not in self._hosts:
            raise Refused(403, "HOST_REFUSED", "this gateway is not called by that host: see gateway.url")
        if any(map(headers.__contains__, _FORWARDED)):
            raise Refused(403, "FORWARDED_REFUSED", "this gateway takes requests from agents, not from other proxies")

    def _token(self, provider: Provider, headers: Mapping[str, str]) -> str:
        scheme = self._schemes[provider.id]
        values = filter(None, map(headers.get, self.places(provider)))
        shown = {scheme.sub("", value.strip(), count=1) for value in values}
        if not shown:
            raise Refused(401, "TOKEN_MISSING", "no lease token: send it where the provider's key would be")
        if len(shown) > 1:
            raise Refused(401, "TWO_CREDENTIALS", "two headers hold different credentials: send the lease token alone")
        (token,) = shown
        if not token.startswith(lease_tokens.PREFIX):
            raise Refused(401, "KEY_REFUSED", "this is no lease token: send the lease token, not the provider's key")
        return token


def _places(provider: Provider) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_USUAL, *(form.name.lower() for form in provider.headers.values()))))


def _schemes(provider: Provider) -> re.Pattern[str]:
    """What may stand before a token: the usual words, and the vendor's own."""
    words = {"bearer", "token", *(form.prefix.strip().lower() for form in provider.headers.values())} - {""}
    return re.compile(rf"\A(?:{'|'.join(map(re.escape, sorted(words)))}) +", re.IGNORECASE)


def _holds_key(query: str) -> bool:
    names = (unquote_plus(part.partition("=")[0]) for part in re.split("[&;]", query))
    return lease_tokens.PREFIX in unquote(query).lower() or any(map(_KEY.fullmatch, names))


@lru_cache(maxsize=64)
def _name(host: str) -> str:
    """Without the port: `[::1]:8787` → `[::1]`."""
    return _PORT.sub("", host.lower())
