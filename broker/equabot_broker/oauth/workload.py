"""Workload identity without I/O: exchanges a token that identifies the workload for a vendor's short-lived token.

It follows the vendors' documentation; no exchange was tested with a vendor. Anthropic takes the identity as an assertion (RFC
7523), OpenAI and OpenRouter take it as a subject token (RFC 8693). `providers` has the names of the fields. All need a JWT
whose issuer, subject and audience they trust, and answer as in RFC 6749 (5.1, 5.2).

An identity token can be sent any number of times, unlike a refresh token. So there is always a next try, and a refusal can be
fixed in the vendor's settings, without a login.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.credentials import span
from equabot_broker.domain.provider import Exchange
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, TokenAnswer, TokenRequest, Tokens, read_answer

SOURCE: Final = "workload"
"""The name of the source of such profiles."""
SIZE_MAX: Final = 16 << 10
"""The maximum number of bytes of an identity token; vendors refuse larger ones."""
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:"
_JWT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_PROJECTED: Final = "name the file of a projected service-account token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A configured identity of a workload at a vendor. `token_file` is an absolute path. `fields` are additional fields for
    the vendor. `token_type` is the type of the token, if the vendor asks for it."""

    profile: str
    provider: str
    token_file: str
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    token_type: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity token. `expires_at` is in seconds since the epoch; None if it is not known."""

    token: SecretValue
    expires_at: float | None


class Unfit(Exception):
    """The reason why a file has no usable identity token. The message continues the file's name, and has nothing of its
    contents."""


def read_identity(raw: bytes) -> Identity:
    """The JWT in a file's bytes, without surrounding whitespace. The vendor checks its signature. Raises Unfit."""
    if len(raw) > SIZE_MAX:
        raise Unfit(f"is larger than 16 KiB, so it is not an identity token: {_PROJECTED}")
    text = raw.decode("ascii", "replace").strip()
    if not text:
        raise Unfit("is empty: check the program that writes the token there")
    parts = _JWT.fullmatch(text)
    header, claims = map(_part, parts.groups() if parts else ("", ""))
    if "alg" not in header or not claims:
        raise Unfit(f"has no JWT: {_PROJECTED}")
    ends = claims.get("exp")
    return Identity(SecretValue(text), ends if isinstance(ends, int | float) and 0 < ends < 10**11 else None)


def exchange_request(exchange: Exchange, workload: Workload, identity: Identity) -> TokenRequest:
    """The request that exchanges the identity."""
    fields: dict[str, str | SecretValue] = {"grant_type": exchange.grant_type, exchange.token: identity.token}
    if exchange.token_types:
        fields["subject_token_type"] = _TOKEN_TYPE + (workload.token_type or exchange.token_types[0])
    return TokenRequest(exchange.url, exchange.encoding, fields | dict(workload.fields), exchange.headers)


def read_exchange(
    answer: TokenAnswer | RefreshFailure, identity: Identity, *, token_file: str, now: float
) -> Tokens | RefreshFailure:
    """The result of an exchange at `now`. After every failure, another try makes sense."""
    meant = answer if isinstance(answer, RefreshFailure) else read_answer(answer, now=now)
    if isinstance(meant, Tokens):
        return meant
    reason = meant.reason
    if meant.blame is Blame.PERMANENT:
        reason += ": check that the vendor trusts the identity token's issuer, subject and audience"
    if identity.expires_at is not None and identity.expires_at <= now:
        ended = span(now - identity.expires_at)
        reason += f"; the identity token in {token_file} expired {ended} ago: check the program that writes that file"
    return replace(meant, blame=Blame.TRANSIENT, reason=reason)


def _part(encoded: str) -> Mapping[str, object]:
    """The JSON object in a part of a JWT, else empty."""
    try:
        found = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
