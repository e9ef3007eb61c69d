"""OAuth refresh without I/O: what to send, what an answer means, and when to ask (RFC 6749, sections 5 and 6).

Refresh tokens are single-use and rotate. So the one question about every failure is whether the token that was sent may be
spent: that is what `Blame` tells apart.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.backoff import seconds_to_wait
from equabot_broker.domain.jwt import claims
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue

AHEAD: Final = 300.0
"""Seconds before its expiry at which a token of a long life is refreshed."""
LARGEST: Final = 256 << 10
"""Bytes of an answer that are read."""
_SHARE: Final = 2 / 3
_SPREAD: Final = 0.2
_DEFAULT_LIFE: Final = 3600.0
_LONGEST_TOKEN: Final = 64 << 10
_REFUSED: Final = frozenset(
    {"invalid_grant", "invalid_token", "invalid_client", "unauthorized_client", "unsupported_grant_type", "access_denied"}
)
_REFUSED_ENDINGS: Final = ("_reused", "_expired", "_revoked", "_invalidated")
_PASSING: Final = frozenset(
    {"temporarily_unavailable", "server_error", "slow_down", "api_error", "overloaded_error", "rate_limit_error",
     "rate_limit_exceeded"}
)  # fmt: skip
_WORDS: Final = frozenset(
    """access account api assertion audience authentication client code consent denied disabled down error exceeded expired
    found grant identity interaction invalid invalidated issuer limit login not overloaded permission provider rate refresh
    request required reused revoked scope server service session slow subject target temporarily token type unauthorized
    unavailable unknown unsupported user""".split()  # noqa: SIM905 - forty pairs of quotes hide the words
)
_OTHER: Final = "other_error"
_DEAD: Final = re.compile(
    r"refresh[ _]?token[^.]{0,60}\b(?:expired|invalid|revoked|not found)|\b(?:expired|invalid|revoked) refresh[ _]?token",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A POST to a token endpoint. `encoding` is `json` or `form`; `headers` hold nothing secret."""

    url: str
    encoding: str
    fields: Mapping[str, str | SecretValue]
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What came back. `retry_after` is the header of that name; a body that is cut off is longer than `LARGEST`."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an endpoint gave. `refresh` is None where the old one stays good; instants in seconds since the epoch."""

    access: SecretValue
    refresh: SecretValue | None
    issued_at: float
    expires_at: float
    account: str = ""
    email: str = ""


class Blame(StrEnum):
    """Why there are no new tokens, and with it what to do next."""

    PERMANENT = "permanent"
    """The endpoint refused for good: a person must log in again."""
    TRANSIENT = "transient"
    """It was not reached, or said itself that it did not do it: try again."""
    UNCERTAIN = "uncertain"
    """It was asked and what it said is lost: nobody knows whether the refresh token is spent."""


@dataclass(frozen=True, slots=True)
class RefreshFailure:
    """Why there are no new tokens: a short `code`, and a sentence. Both are made of our own words and of an OAuth error code,
    never of an answer's text. `retry_after` in seconds."""

    blame: Blame
    code: str
    reason: str
    retry_after: float | None = None


def refresh_request(provider: Provider, refresh: SecretValue, *, client_id: str = "") -> TokenRequest:
    """The request that redeems a refresh token."""
    fields: dict[str, str | SecretValue] = {"grant_type": "refresh_token", "refresh_token": refresh}
    client = client_id or provider.client_id
    if client:
        fields["client_id"] = client
    return TokenRequest(provider.token_url, provider.token_encoding, fields)


def read_answer(answer: TokenAnswer, *, now: float) -> Tokens | RefreshFailure:
    """What a token endpoint's answer means at `now`.

    A server's error (5xx) counts as the endpoint's own word that it did nothing, also where a proxy in front of it says so.
    """
    content = decoded(answer.body)
    code = error_code(content)
    if 200 <= answer.status < 300 and not code:
        return _granted(content, now=now)
    told = f"the token endpoint answered {answer.status}{' ' if code else ''}{code}"
    if answer.status < 500 and (_for_good(answer.status, code) or _dead(answer.status, code, content)):
        return RefreshFailure(Blame.PERMANENT, code, told)
    wait = seconds_to_wait(answer.retry_after, now=now)
    return RefreshFailure(Blame.TRANSIENT, code or f"http_{answer.status}", told, wait)


def _for_good(status: int, code: str) -> bool:
    if status in (408, 425, 429) or code in _PASSING:
        return False
    return code in _REFUSED or code.endswith(_REFUSED_ENDINGS) or (status == 401 and bool(code))


def _dead(status: int, code: str, content: Mapping[str, object]) -> bool:
    """Whether an endpoint says in a sentence, and not by its code, that the refresh token is dead: Qwen's answers 400
    `invalid_request`, "refresh token expired or invalid"."""
    said = content.get("error_description")
    return status == 400 and code == "invalid_request" and isinstance(said, str) and _DEAD.search(said[:1000]) is not None


def _granted(answer: Mapping[str, object], *, now: float) -> Tokens | RefreshFailure:
    access, refresh = _token(answer.get("access_token")), answer.get("refresh_token")
    renewed = _token(refresh)
    if access is None or (refresh and renewed is None):
        return RefreshFailure(Blame.UNCERTAIN, "unusable_answer", "the token endpoint answered without usable tokens")
    account = answer.get("account")
    account = account if isinstance(account, dict) else {}
    # An id token's signature needs no check: it came from the endpoint itself, over TLS (OpenID Connect Core, 3.1.3.7).
    id_token = answer.get("id_token")
    said = claims(id_token) if isinstance(id_token, str) else {}
    return Tokens(
        access,
        renewed,
        now,
        now + life(answer.get("expires_in")),
        account=_first_text(answer.get("account_id"), account.get("uuid"), account.get("id")),
        email=_first_text(answer.get("email"), account.get("email_address"), account.get("email"), said.get("email")),
    )


def _token(value: object) -> SecretValue | None:
    """A token as it can travel in a header: visible ASCII."""
    text = value.strip() if isinstance(value, str) else ""
    good = 0 < len(text) <= _LONGEST_TOKEN and text.isascii() and text.isprintable() and " " not in text
    return SecretValue(text) if good else None


def life(expires_in: object) -> float:
    """Seconds an access token lives. Digits in a string are read; what says nothing, or nothing sensible, is an hour."""
    if isinstance(expires_in, str):
        text = expires_in.strip()
        expires_in = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not 0 < expires_in < 10**10:
        return _DEFAULT_LIFE
    return float(expires_in)


def refresh_at(*, issued_at: float | None, expires_at: float, chance: float) -> float:
    """When to refresh: five minutes before the expiry, or at two thirds of a shorter life; earlier by up to a fifth of what is
    left then, by `chance` in [0, 1), so that brokers that got their tokens together do not come back together."""
    lead = AHEAD
    if issued_at is not None and expires_at > issued_at:
        lead = min(lead, (expires_at - issued_at) * (1 - _SHARE))
    return expires_at - lead * (1 + _SPREAD * chance)


def same_identity(account: str, email: str, *, other_account: str, other_email: str) -> bool:
    """Whether two sets of tokens can belong to one login: what both sides know must agree."""
    accounts_differ = bool(account and other_account and account != other_account)
    emails_differ = bool(email and other_email and email.lower() != other_email.lower())
    return not accounts_differ and not emails_differ


def decoded(body: bytes) -> dict[str, object]:
    """The JSON object in an answer; empty where there is none."""
    if len(body) > LARGEST:
        return {}
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def error_code(answer: Mapping[str, object]) -> str:
    """The error that an answer names, where it is one of ours to repeat; empty where it names none."""
    error = answer.get("error")
    if isinstance(error, dict):
        error = error.get("code") or error.get("type")
    if not isinstance(error, str) or not error:
        return ""
    # Only a code made of words that codes are made of is repeated: an endpoint may echo anything, the token included.
    return error if len(error) <= 60 and set(error.split("_")) <= _WORDS else _OTHER


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")
