"""Refreshes without I/O: the request, the meaning of an answer, and the time of a refresh (RFC 6749, sections 5 and 6).

Refresh tokens can be used once, and rotate. So each failure must say whether the token may have been used up: `Blame` does.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.backoff import seconds_to_wait
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.parsing.jwt import claims

AHEAD: Final = 300.0
"""Seconds before its expiry at which a token with a long lifetime is refreshed."""
LARGEST: Final = 256 << 10
"""The maximum number of bytes of an answer that are read."""
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
    """A POST to a token endpoint. `encoding` is `json` or `form`; `headers` have no secret."""

    url: str
    encoding: str
    fields: Mapping[str, str | SecretValue]
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """An answer. `retry_after` is the header of that name. A body that was cut off is longer than `LARGEST`."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The new tokens. `refresh` is None if the old one stays valid; instants are in seconds since the epoch."""

    access: SecretValue
    refresh: SecretValue | None
    issued_at: float
    expires_at: float
    account: str = ""
    email: str = ""


class Blame(StrEnum):
    """The reason for a failed refresh, which decides the next step."""

    PERMANENT = "permanent"
    """The endpoint refused for good: the user must log in again."""
    TRANSIENT = "transient"
    """The endpoint was not reached, or answered that it did nothing: try again."""
    UNCERTAIN = "uncertain"
    """The request was sent and the answer is lost: the refresh token may have been used up."""


@dataclass(frozen=True, slots=True)
class RefreshFailure:
    """A failed refresh: a short `code` and a sentence. Both have our own words and an OAuth error code, never text of the
    answer. `retry_after` is in seconds."""

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
    """The meaning of a token endpoint's answer at `now`.

    A server error (5xx) counts as a statement that the endpoint did nothing, even if a proxy sent it.
    """
    content = decoded(answer.body)
    code = error_code(content)
    if 200 <= answer.status < 300 and not code:
        return _granted(content, now=now)
    summary = f"the token endpoint answered {answer.status}{' ' if code else ''}{code}"
    if answer.status < 500 and (_for_good(answer.status, code) or _dead(answer.status, code, content)):
        return RefreshFailure(Blame.PERMANENT, code, summary)
    wait = seconds_to_wait(answer.retry_after, now=now)
    return RefreshFailure(Blame.TRANSIENT, code or f"http_{answer.status}", summary, wait)


def _for_good(status: int, code: str) -> bool:
    if status in (408, 425, 429) or code in _PASSING:
        return False
    return code in _REFUSED or code.endswith(_REFUSED_ENDINGS) or (status == 401 and bool(code))


def _dead(status: int, code: str, content: Mapping[str, object]) -> bool:
    """Whether an endpoint says in a sentence, not by its code, that the refresh token is not valid. Qwen's answers 400
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
    # The signature of the id token needs no check: the token came from the endpoint over TLS (OpenID Connect Core, 3.1.3.7).
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
    """A token that a header can have: visible ASCII."""
    text = value.strip() if isinstance(value, str) else ""
    good = 0 < len(text) <= _LONGEST_TOKEN and text.isascii() and text.isprintable() and " " not in text
    return SecretValue(text) if good else None


def life(expires_in: object) -> float:
    """The lifetime of an access token in seconds. Digits in a string are accepted; a missing or unusable value means an
    hour."""
    if isinstance(expires_in, str):
        text = expires_in.strip()
        expires_in = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not 0 < expires_in < 10**10:
        return _DEFAULT_LIFE
    return float(expires_in)


def refresh_at(*, issued_at: float | None, expires_at: float, chance: float) -> float:
    """The time of the refresh: five minutes before the expiry, or after two thirds of a shorter lifetime. `chance` in [0, 1)
    makes it earlier by up to a fifth of the rest, so that brokers with tokens of the same time do not refresh at once."""
    lead = AHEAD
    if issued_at is not None and expires_at > issued_at:
        lead = min(lead, (expires_at - issued_at) * (1 - _SHARE))
    return expires_at - lead * (1 + _SPREAD * chance)


def same_identity(account: str, email: str, *, other_account: str, other_email: str) -> bool:
    """Whether two sets of tokens can belong to one login: they agree where both have a value."""
    accounts_differ = bool(account and other_account and account != other_account)
    emails_differ = bool(email and other_email and email.lower() != other_email.lower())
    return not accounts_differ and not emails_differ


def decoded(body: bytes) -> dict[str, object]:
    """The JSON object in an answer, else empty."""
    if len(body) > LARGEST:
        return {}
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def error_code(answer: Mapping[str, object]) -> str:
    """The error code in an answer, if it may be repeated; else empty."""
    error = answer.get("error")
    if isinstance(error, dict):
        error = error.get("code") or error.get("type")
    if not isinstance(error, str) or not error:
        return ""
    # Repeats only codes that consist of known words: an endpoint may echo anything, even the token.
    return error if len(error) <= 60 and set(error.split("_")) <= _WORDS else _OTHER


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")
