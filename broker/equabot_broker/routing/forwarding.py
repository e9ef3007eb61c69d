"""What of a request goes on to the provider: an allow-list of names, and no credential but the one that the gateway adds.

A header that is not on the list is removed. A query parameter or a WebSocket protocol that is not on the list is refused,
because a request without it would mean something else. A list holds names, and beginnings of names that end in `*`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, unquote_plus

from equabot_broker.domain import lease_tokens
from equabot_broker.domain.provider import Provider

_CREDENTIAL: Final = re.compile(
    r"token(?!s(?:$|[-_.]))|secret|passw|passphrase|credential|cookie|jwt|bearer|signature|subscription|assertion|ticket"
    r"|auth(?!or(?:s|ed|ity)?(?:$|[-_.]))|key(?:s?$|[-_.])|^x-amz-|(?:^|[-_.$])(?:sig|pwd|pass|pat|sid|otp|sso)(?:$|[-_.])",
    re.IGNORECASE,
)
"""Words in the names of headers and parameters in which a credential may be."""
_SHAPES: Final = r"\bsk-[\w-]{16}|\beyJ[\w-]{8,}\.[\w-]{8,}\."
"""Credentials of many vendors: plain keys, and JSON Web Tokens (RFC 7519)."""
_STARTS: Final = (lease_tokens.PREFIX, "sk-", "eyJ")
_DECODED_AT_MOST: Final = 3
_LONGEST: Final = 64
"""Characters of a name. What is longer is on no list, and is not remembered."""
KEY_HEADERS: Final = ("authorization", "x-api-key", "x-goog-api-key", "api-key", "proxy-authorization")
"""Where SDKs put keys, whatever the vendor. A token is taken from there, and the gateway writes what goes on."""
STRIPPED: Final = (
    "x-forwarded-proto", "x-request-id", "x-envoy-expected-rq-timeout-ms", "x-envoy-internal", "x-envoy-external-address",
    "x-envoy-auth-partial-body",
)  # fmt: skip
"""What Envoy adds to requests, among it an agent's address. The last one an agent may send, and the broker is not shown it."""
_OURS: Final = ("x-equabot-", "x-envoy-")
_HOPS: Final = frozenset({"host", "keep-alive", "proxy-connection", "trailer", "trailers"})
_COOKIES: Final = frozenset({"cookie", "cookie2", "set-cookie", "set-cookie2"})
_KEYS_IN_QUERIES: Final = frozenset({*KEY_HEADERS, "apikey", "access-token", "accesstoken", "bearer-token"})
_SEPARATORS: Final = re.compile("[&;?]")
_SHOWN: Final = re.compile(r"[A-Za-z0-9._$\[\]-]{1,40}")


def may_hold_credential(name: str) -> bool:
    """Whether a header or a parameter of that name could carry a credential. Rather too often than too rarely."""
    return _CREDENTIAL.search(name) is not None


class Names:
    """A list of names, in any case, but for those in `without`. A beginning with `*` does not match names that may hold a
    credential: those are listed one by one."""

    __slots__ = ("_beginnings", "_exact", "_known")

    def __init__(self, listed: Iterable[str], *, without: Iterable[str] = ()) -> None:
        names = {name.lower() for name in listed}.difference(without)
        self._exact = frozenset(name for name in names if not name.endswith("*"))
        self._beginnings = tuple(name[:-1] for name in names if name.endswith("*"))
        self._known = lru_cache(maxsize=256)(self._holds)

    def __contains__(self, name: str) -> bool:
        return len(name) <= _LONGEST and self._known(name)

    def unlisted(self, names: Iterable[str]) -> list[str]:
        """Those that are not on the list."""
        known = self._known
        return [name for name in names if len(name) > _LONGEST or not known(name)]

    def _holds(self, name: str) -> bool:
        lower = name.lower()
        return lower in self._exact or (lower.startswith(self._beginnings) and not may_hold_credential(lower))


class Credentials:
    """Recognises the credentials of all known providers, and lease tokens, inside other text."""

    __slots__ = ("_found", "_starts")

    def __init__(self, providers: Iterable[Provider]) -> None:
        prefixes = {prefix for known in providers for prefix in (*known.key_prefixes, *known.token_prefixes)}
        starts = "|".join(map(re.escape, sorted(prefixes, key=len, reverse=True)))
        # With a digit: "xai-sdk-python-client" is the name of a program.
        vendors = rf"|(?<![A-Za-z0-9])(?:{starts})(?=[\w.-]{{0,64}}[0-9])[\w.-]{{16}}" if starts else ""
        self._found = re.compile(f"{lease_tokens.PREFIX}|{_SHAPES}{vendors}", re.ASCII)
        self._starts = (*_STARTS, *(one for one in prefixes if not any(start in one for start in _STARTS)))

    def within(self, text: str) -> bool:
        """Whether the text has one in it, percent-encoded or not."""
        for _ in range(_DECODED_AT_MOST):
            if self._search(text):
                return True
            if "%" not in text or (decoded := unquote(text)) == text:
                return False
            text = decoded
        return self._search(text)

    def _search(self, text: str) -> bool:
        # Most texts have no beginning of a credential in them, which is seen sooner than by the expression.
        return any(map(text.__contains__, self._starts)) and self._found.search(text) is not None


def parameters(query: str) -> tuple[str, ...]:
    """The names of a query's parameters, decoded and without an index: `a%5B0%5D=1&b` → `a`, `b`. A semicolon and a
    further question mark separate as well: some servers take them so."""
    parts = (part.partition("=")[0] for part in _SEPARATORS.split(query) if part)
    return tuple(_parameter(unquote_plus(part)) for part in parts)


def _parameter(name: str) -> str:
    return name if name.startswith("[") else name.partition("[")[0]


def header_fault(listed: str, places: Iterable[str]) -> str:
    """Why a header that is listed to go on to a provider does not; empty: it does. `places` are the headers in which that
    provider is sent its credential."""
    name = listed.lower()
    if name.replace("_", "-") in {*KEY_HEADERS, *(place.lower() for place in places)}:
        return "holds the credential, which the gateway alone writes: what a request has there never goes on"
    if name.replace("_", "-") in _COOKIES:
        return "would be a second credential. The gateway takes cookies out of answers, so an agent has none to send"
    if name in STRIPPED or name.startswith(_OURS):
        return "is the gateway's own header, and it takes that out of every request"
    return "belongs to one connection, and the gateway has its own to the provider" if name in _HOPS else ""


def query_fault(listed: str) -> str:
    """Why a query parameter that is listed to go on to a provider must not; empty: it may."""
    if listed.lower().replace("_", "-") in _KEYS_IN_QUERIES:
        return "is for a key, and the gateway sends the provider's key in a header: a second one would take its place"
    return ""


def shown(name: str) -> str:
    """The name for a message: quoted where it is plain, and only described where it might be anything."""
    return repr(name) if _SHOWN.fullmatch(name) else "of that name"
