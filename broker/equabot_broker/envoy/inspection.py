"""Inspects a request as the agent sent it: its origin, its destination, and its token in any header where an SDK may put
it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from equabot_broker.domain import lease_tokens
from equabot_broker.domain.provider import Catalog, Provider
from equabot_broker.envoy.refusals import RequestRefused
from equabot_broker.providers.forwarding import COMMON
from equabot_broker.routing.forwarding import KEY_HEADERS, Credentials, Names, may_hold_credential, parameters, shown
from equabot_broker.routing.request_rules import target_fault

_PROXIED: Final = re.compile(
    r"forwarded|via|x-forwarded(?!-proto\Z).*|x-original-(?!url\Z).*|(?:.+-)?(?:client|connecting|real|remote|user)-?(?:ip|addr)(?:v6)?"
)
"""Headers in which a proxy names its client. Envoy writes `x-forwarded-proto` itself."""
_ANOTHER: Final = frozenset({"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"})
"""Headers by which some servers accept another method or path."""
_ENVOYS: Final = frozenset({":authority", ":method", ":path", ":protocol", ":scheme", "host"})
"""Headers that Envoy derives from the request line."""
_HOPS: Final = frozenset({"upgrade", "close", "keep-alive", ""})
_PORT: Final = re.compile(r":[0-9]*\Z")
_DROPPED: Final = frozenset({"cookie"})
"""Headers that HTTP clients send by themselves: a cookie that an answer has set."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """The headers that are forwarded to a provider, and those that may have its token."""

    headers: Names
    query: Names
    subprotocols: frozenset[str]
    places: tuple[str, ...]
    scheme: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class InspectedRequest:
    """A request and its provider. `path` is the path after the gateway's `/<provider>`. `token` has the right form, but may
    belong to no lease. `removed` are the headers that are not forwarded, in lower case."""

    provider: Provider
    path: str
    token: str = field(repr=False)
    removed: tuple[str, ...] = ()
    query: str = ""


def behind(path: str) -> str:
    """The path and the query after the gateway's `/<provider>`."""
    return path[len(_first(path)) + 1 :] or "/"


class Inspection:
    """Inspects requests. `names` are the hosts by which agents call the gateway, in addition to those of this machine."""

    def __init__(self, catalog: Catalog, names: Iterable[str] = ()) -> None:
        self._catalog = catalog
        written = (f"[{name}]" if ":" in name else name.lower() for name in names if name)
        self._hosts = frozenset(("127.0.0.1", "[::1]", "localhost", *written))
        self._credentials = Credentials(catalog.providers.values())
        self._rules = {provider.id: _rules(provider) for provider in catalog.providers.values()}

    def provider(self, target: str, named: str) -> Provider:
        """The provider of the request: its route and its path must name the same one. Raises RequestRefused."""
        first = _first(target)
        provider = self._catalog.get(named or first)
        if provider is None or first not in provider.names:
            raise RequestRefused(
                404,
                "PROVIDER_UNKNOWN",
                "this path has no provider of the gateway: it begins with /<provider>/, of a provider that has"
                " providers.<provider>.requests or a built-in list",
            )
        return provider

    def inspect(self, provider: Provider, target: str, host: str, headers: Mapping[str, str]) -> InspectedRequest:
        """Parses the request for the decision. Names of headers are in lower case. Raises RequestRefused."""
        rules = self._rules[provider.id]
        unlisted = rules.headers.unlisted(headers)
        meant = frozenset(map(_dashed, unlisted))
        self._refuse_strangers(host, headers, meant)
        path, _, query = target.partition("?")
        if fault := target_fault(path, query):
            raise RequestRefused(403, "INVALID_ARGUMENT", fault)
        if not _ANOTHER.isdisjoint(meant):
            others = ", ".join(sorted(_ANOTHER))
            raise RequestRefused(403, "INVALID_ARGUMENT", f"the request line has the method and the path: remove {others}")
        hops = headers.get("connection", "")
        if hops and not _HOPS.issuperset(word.strip() for word in hops.lower().split(",")):
            raise RequestRefused(
                403,
                "INVALID_ARGUMENT",
                "Connection names a header, which would be lost before the provider: remove it from Connection",
            )
        if query:
            self._refuse_query(provider, rules, query)
        if protocols := headers.get("sec-websocket-protocol"):
            _refuse_subprotocols(provider, rules, protocols)
        token = _token(rules, headers)
        removed = tuple(name for name in unlisted if name not in _ENVOYS)
        self._refuse_credentials(provider, rules, headers, token, removed)
        return InspectedRequest(provider, behind(path), token, removed, query)

    def _refuse_strangers(self, host: str, headers: Mapping[str, str], meant: Iterable[str]) -> None:
        """Refuses requests of web pages. A page can send requests to this machine, but not without these headers, or it can
        make its own name point here, which then is the host.

        Some clients other than browsers send the gateway's own origin: the gateway serves no page that could have it. `meant`
        are the names of unlisted headers.
        """
        foreign = "origin" in headers and not self._is_own(headers["origin"], host)
        if foreign or headers.get("sec-fetch-site", "none") != "none":
            raise RequestRefused(403, "BROWSER_REFUSED", "this gateway does not serve pages in a browser")
        if host and _name(host) not in self._hosts:
            raise RequestRefused(403, "HOST_REFUSED", "this host is not a name of the gateway: see gateway.url")
        if any(map(_PROXIED.fullmatch, meant)):
            raise RequestRefused(403, "FORWARDED_REFUSED", "this gateway takes requests from agents, not from other proxies")

    def _is_own(self, origin: str, host: str) -> bool:
        """Whether the address is exactly the one, with its port, to which this request was sent."""
        scheme, _, authority = origin.lower().partition("://")
        return scheme in ("http", "https") and authority == host.lower() != "" and _name(host) in self._hosts

    def _refuse_query(self, provider: Provider, rules: _Rules, query: str) -> None:
        unlisted = rules.query.unlisted(parameters(query))
        hidden = lease_tokens.PREFIX in unquote(query).lower() or self._credentials.within(query)
        if hidden or any(map(may_hold_credential, unlisted)):
            raise RequestRefused(
                401,
                "TOKEN_IN_QUERY",
                "the query has a key or a token, or a parameter for one: send the lease token in a header",
            )
        if unlisted:
            raise RequestRefused(
                403,
                "POLICY_DENIED",
                f"the query parameter {shown(unlisted[0])} is not allowed for {provider.id}: leave it out, or list it"
                f" in providers.{provider.id}.query",
            )

    def _refuse_credentials(
        self, provider: Provider, rules: _Rules, headers: Mapping[str, str], token: str, removed: tuple[str, ...]
    ) -> None:
        """Refuses a credential other than the token. A repetition of the token in another header is not a second
        credential."""
        for name in removed:
            meant = _dashed(name)
            if name in rules.places or meant in _DROPPED or not may_hold_credential(meant):
                continue
            if rules.scheme.sub("", headers[name].strip(), count=1) not in {"", token}:
                raise RequestRefused(
                    401,
                    "KEY_REFUSED",
                    f"the header {shown(name)} could have a second credential: send the lease token alone, or list the"
                    f" header in providers.{provider.id}.forward_headers",
                )
        if self._credentials.within(
            "\n".join([value for name, value in headers.items() if name not in removed and name[:1] != ":"])
        ):
            raise RequestRefused(
                401, "KEY_REFUSED", "a header other than the token's has a credential: send the lease token alone"
            )


def _rules(provider: Provider) -> _Rules:
    places = tuple(dict.fromkeys((*KEY_HEADERS, *(form.name.lower() for form in provider.headers.values()))))
    return _Rules(
        headers=Names((*COMMON.headers.split(), *provider.forward_headers, *provider.accounts), without=places),
        query=Names((*COMMON.query.split(), *provider.query)),
        subprotocols=frozenset((*COMMON.subprotocols.split(), *provider.subprotocols)),
        places=places,
        scheme=_scheme(provider),
    )


def _scheme(provider: Provider) -> re.Pattern[str]:
    """The prefixes that may precede a token: the usual ones, and the vendor's own."""
    words = {"bearer", "token", *(form.prefix.strip().lower() for form in provider.headers.values())} - {""}
    return re.compile(rf"\A(?:{'|'.join(map(re.escape, sorted(words)))}) +", re.IGNORECASE)


def _token(rules: _Rules, headers: Mapping[str, str]) -> str:
    values = filter(None, map(headers.get, rules.places))
    found = {rules.scheme.sub("", value.strip(), count=1) for value in values}
    if not found:
        raise RequestRefused(401, "TOKEN_MISSING", "no lease token: send it in the header of the provider's key")
    if len(found) > 1:
        raise RequestRefused(401, "TWO_CREDENTIALS", "two headers have different credentials: send the lease token alone")
    (token,) = found
    if not token.startswith(lease_tokens.PREFIX):
        raise RequestRefused(401, "KEY_REFUSED", "this is not a lease token: send the lease token, not the provider's key")
    return token


def _refuse_subprotocols(provider: Provider, rules: _Rules, written: str) -> None:
    """Browsers cannot set headers, so vendors accept keys in the name of a WebSocket protocol."""
    if not rules.subprotocols.issuperset(word.strip() for word in written.split(",")):
        raise RequestRefused(
            401,
            "KEY_REFUSED",
            f"a WebSocket protocol that is not listed for {provider.id} could be a key: send the lease token in a header,"
            f" or list the protocol in providers.{provider.id}.subprotocols",
        )


def _first(target: str) -> str:
    return "".join(target.partition("?")[0].split("/", 2)[1:2])


def _dashed(name: str) -> str:
    """The header name that some servers read: CGI and WSGI read `x_api_key` as `x-api-key`."""
    return name.replace("_", "-")


@lru_cache(maxsize=64)
def _name(host: str) -> str:
    """The host without its port: `[::1]:8787` → `[::1]`."""
    return _PORT.sub("", host.lower())
