"""Workload identity without I/O: a token that says who the workload is, exchanged for a vendor's token of minutes.

Of the vendors only what they publish is known; no exchange was tried with one of them. Anthropic takes the identity as an
assertion (RFC 7523), OpenAI and OpenRouter take it as a subject token (RFC 8693); the names of the fields are in
`providers`. All want a JWT whose issuer, subject and audience they have been told to trust, and answer as RFC 6749 (5.1,
5.2) says.

Unlike a refresh token an identity token is not spent by being sent. So there is always another try, and whatever refuses it may
be mended where the vendor keeps its rules, without anybody logging in.
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
"""The name of the source that such profiles form."""
SIZE_MAX: Final = 16 << 10
"""Bytes an identity token may have; more than this the vendors refuse."""
_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:"
_JWT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+")
_PROJECTED: Final = "name the file of a projected service-account token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload's identity at a vendor, as configured. `token_file` is an absolute path, `fields` what the vendor wants to be
    told beside the token, `token_type` which kind it is, where the vendor asks."""

    profile: str
    provider: str
    token_file: str
    fields: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    token_type: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """An identity token. `expires_at` in seconds since the epoch, None where it does not say."""

    token: SecretValue
    expires_at: float | None


class Unfit(Exception):
    """Why a file's contents are no identity token. The words go on from the file's name, and hold nothing of what is in it."""


def read_identity(raw: bytes) -> Identity:
    """The JWT in a file's bytes, whitespace around it aside. Its signature is the vendor's to look at. Raises Unfit."""
    if len(raw) > SIZE_MAX:
        raise Unfit(f"is larger than 16 KiB, so it is no identity token: {_PROJECTED}")
    text = raw.decode("ascii", "replace").strip()
    if not text:
        raise Unfit("is empty: see what should write the token there")
    parts = _JWT.fullmatch(text)
    header, claims = map(_part, parts.groups() if parts else ("", ""))
    if "alg" not in header or not claims:
        raise Unfit(f"holds no JWT: {_PROJECTED}")
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
    """What came of an exchange at `now`. Every failure is one after which to try again."""
    meant = answer if isinstance(answer, RefreshFailure) else read_answer(answer, now=now)
    if isinstance(meant, Tokens):
        return meant
    reason = meant.reason
    if meant.blame is Blame.PERMANENT:
        reason += ": see that the vendor trusts the identity token's issuer, subject and audience"
    if identity.expires_at is not None and identity.expires_at <= now:
        ended = span(now - identity.expires_at)
        reason += f"; the identity token in {token_file} expired {ended} ago: whoever writes that file does so no more"
    return replace(meant, blame=Blame.TRANSIENT, reason=reason)


def _part(encoded: str) -> Mapping[str, object]:
    """A part of a JWT that is a JSON object; empty where it is none."""
    try:
        found = json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
