"""OAuth refresh without I/O: what to send, what an answer means, and when to ask (RFC 6749, sections 5 and 6).

Refresh tokens are single-use and rotate: an answer that cannot be trusted is never asked for again, because the token that was sent
may already be spent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from broker.domain.provider import Provider
from broker.domain.secret_value import SecretValue

AHEAD: Final = 300.0
"""Seconds before its expiry at which a token of a long life is refreshed."""
_SHARE: Final = 2 / 3
_SPREAD: Final = 0.2
_DEFAULT_LIFE: Final = 3600.0
_LARGEST: Final = 256 << 10
_PERMANENT: Final = frozenset(
    {"invalid_grant", "refresh_token_reused", "invalid_client", "unauthorized_client", "unsupported_grant_type", "access_denied"}
)
_SHAPE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-.")


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A POST to a token endpoint. `encoding` is `json` or `form`."""

    url: str
    encoding: str
    fields: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an endpoint gave. `refresh` is None where the old one stays good; instants in seconds since the epoch."""

    access: SecretValue
    refresh: SecretValue | None
    expires_at: float
    account: str = ""
    email: str = ""


class Blame(StrEnum):
    """Why there are no new tokens, and with it what to do next."""

    PERMANENT = "permanent"
    """The endpoint refused for good: a person must log in again."""
    TRANSIENT = "transient"
    """The endpoint certainly did not spend the refresh token: try again."""
    UNCERTAIN = "uncertain"
    """Nobody knows whether the refresh token is spent: it must not be sent again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there are no new tokens. `reason` is made of our own words and of an error code, never of an answer's text."""

    blame: Blame
    reason: str
    retry_after: float | None = None


def refresh_request(provider: Provider, refresh: SecretValue, *, client_id: str = "") -> TokenRequest:
    """The request that redeems a refresh token."""
    fields = {"grant_type": "refresh_token", "refresh_token": refresh.reveal()}
    client = client_id or provider.client_id
    if client:
        fields["client_id"] = client
    return TokenRequest(provider.token_url, provider.token_encoding, fields)


def read_answer(status: int, body: bytes, *, now: float, retry_after: float | None = None) -> Tokens | Failure:
    """What a token endpoint's answer means.

    A 5xx may come from a proxy in front of an endpoint that has already spent the token: endpoints keep a spent token
    good for nothing, so only answers that certainly precede redemption (429, 503, 408) are tried again with the same one; other 5xx are
    retried as well, for a `refresh_token_reused` that follows is then told apart by the caller's intent.
    """
    if 200 <= status < 300:
        return _granted(body, now=now)
    code = _error_code(body)
    if status in (408, 425, 429) or status >= 500:
        return Failure(Blame.TRANSIENT, f"the token endpoint answered {status}", retry_after)
    if code in _PERMANENT or (status in (400, 401, 403) and code):
        return Failure(Blame.PERMANENT, f"the token endpoint answered {status} {code}")
    return Failure(Blame.TRANSIENT, f"the token endpoint answered {status} without an OAuth error", retry_after)


def _granted(body: bytes, *, now: float) -> Tokens | Failure:
    answer = _object(body)
    access = answer.get("access_token")
    if not isinstance(access, str) or not access.isascii() or not access.isprintable() or not access.strip():
        return Failure(Blame.UNCERTAIN, "the token endpoint answered 200 without a usable access token")
    refresh = answer.get("refresh_token")
    account = answer.get("account")
    account = account if isinstance(account, dict) else {}
    return Tokens(
        SecretValue(access.strip()),
        SecretValue(refresh) if isinstance(refresh, str) and refresh else None,
        now + life(answer.get("expires_in")),
        account=_first_text(answer.get("account_id"), account.get("uuid"), account.get("id")),
        email=_first_text(answer.get("email"), account.get("email_address"), account.get("email")),
    )


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


def _object(body: bytes) -> dict[str, object]:
    if len(body) > _LARGEST:
        return {}
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _error_code(body: bytes) -> str:
    answer = _object(body).get("error")
    if isinstance(answer, dict):
        answer = answer.get("code") or answer.get("type")
    # Only what looks like a code is repeated: an endpoint may echo anything, the token included.
    return answer if isinstance(answer, str) and 0 < len(answer) <= 40 and set(answer) <= _SHAPE else ""


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")
