"""Logins without I/O: the authorization-code flow with PKCE (RFC 6749 4.1, RFC 7636, RFC 8252) and the device flow (RFC 8628).

The browser returns a code that is valid once and for minutes. Only the process that began the login can redeem it, because the
PKCE verifier never leaves that process before.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode

from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.oauth.refreshing import TokenAnswer, TokenRequest, Tokens, decoded, error_code
from equabot_broker.parsing.jwt import claims

ENTROPY: Final = 64
"""The number of random bytes for a login."""
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

_LONGEST: Final = 8192
_DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_PATIENCE: Final = 900.0
_INTERVAL: Final = 5.0
_SLOWER: Final = 5.0


class AuthorizationRefusal(Exception):
    """The returned text does not complete this login. The message has our own words and an OAuth error code only."""


class Denied(AuthorizationRefusal):
    """The vendor or the user refused this login."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login in progress. `redirect_url` is the address that gets the code; empty in the device flow."""

    state: SecretValue
    verifier: SecretValue
    redirect_url: str

    @property
    def challenge(self) -> str:
        """The challenge, which proves possession of the verifier without revealing it (S256)."""
        return _base64url(hashlib.sha256(self.verifier.reveal().encode()).digest())


@dataclass(frozen=True, slots=True)
class Code:
    """The code that the user or the browser returned. `state` is set if the vendor shows both in one text."""

    code: SecretValue
    state: SecretValue | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device login in progress: the address to open, the code to type, its lifetime and the interval between requests
    (seconds)."""

    device_code: SecretValue
    user_code: str
    url: str
    lives: float
    interval: float


def begin(entropy: bytes, *, redirect_url: str = "") -> Attempt:
    """A login made of `ENTROPY` random bytes."""
    half = ENTROPY // 2
    return Attempt(SecretValue(_base64url(entropy[:half])), SecretValue(_base64url(entropy[half:ENTROPY])), redirect_url)


def authorize_url(provider: Provider, attempt: Attempt) -> str:
    """The address that the user opens in a browser."""
    asked = {
        **provider.authorize_extra,
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": attempt.redirect_url,
        "scope": " ".join(provider.scopes),
        "code_challenge": attempt.challenge,
        "code_challenge_method": "S256",
        "state": attempt.state.reveal(),
    }
    return f"{provider.authorize_url}?{urlencode({name: value for name, value in asked.items() if value})}"


def read_returned(text: str, attempt: Attempt) -> Code:
    """The code in the returned text: the whole address, its query, `code#state`, or the code alone, which PKCE protects.

    Raises AuthorizationRefusal.
    """
    text = text.strip()
    if not text or len(text) > _LONGEST or not text.isascii() or not text.isprintable() or " " in text:
        raise AuthorizationRefusal("the text is neither a code nor the address that the browser shows: copy all of it")
    if "://" in text or "code=" in text or "error=" in text:
        query = text.partition("?")[2] or text
        return _of_query(parse_qs(query.partition("#")[0]), attempt)
    code, mark, state = text.partition("#")
    if not mark:
        return Code(SecretValue(code))
    _check(state, attempt)
    return Code(SecretValue(code), attempt.state)


def read_query(query: str, attempt: Attempt) -> Code:
    """The code in the query of a redirect, whose state must match. Raises AuthorizationRefusal."""
    return _of_query(parse_qs(query[:_LONGEST]), attempt)


def code_request(provider: Provider, attempt: Attempt, code: Code) -> TokenRequest:
    """The request that redeems the code."""
    fields: dict[str, str | SecretValue] = {
        "grant_type": "authorization_code",
        "client_id": provider.client_id,
        "code": code.code,
        "redirect_uri": attempt.redirect_url,
        "code_verifier": attempt.verifier,
    }
    if code.state is not None:
        fields["state"] = code.state
    return TokenRequest(provider.token_url, provider.token_encoding, fields)


def device_request(provider: Provider, attempt: Attempt) -> TokenRequest:
    """The request that begins a device login."""
    fields: dict[str, str | SecretValue] = {
        "client_id": provider.client_id,
        "scope": " ".join(provider.scopes),
        "code_challenge": attempt.challenge,
        "code_challenge_method": "S256",
    }
    return TokenRequest(provider.device_url, "form", fields)


def read_device(answer: TokenAnswer) -> Device:
    """The device login that the vendor has begun. Raises AuthorizationRefusal."""
    content = decoded(answer.body)
    if answer.status != 200:
        raise AuthorizationRefusal(f"the provider answered {answer.status} {error_code(content)}".rstrip())
    device, user = content.get("device_code"), content.get("user_code")
    url = content.get("verification_uri_complete") or content.get("verification_uri")
    if not all(isinstance(text, str) and text.isprintable() and 0 < len(text) <= _LONGEST for text in (device, user, url)):
        raise AuthorizationRefusal("the provider answered without a device login")
    if not str(url).startswith(("https://", "http://")):  # a browser may open it
        raise AuthorizationRefusal("the provider answered with an address that is not a web address")
    lives, interval = _seconds(content.get("expires_in"), _PATIENCE), _seconds(content.get("interval"), _INTERVAL)
    return Device(SecretValue(str(device)), str(user), str(url), min(lives, _PATIENCE), min(interval, _PATIENCE))


def poll_request(provider: Provider, attempt: Attempt, device: Device) -> TokenRequest:
    """The request that asks whether the user has logged in."""
    fields: dict[str, str | SecretValue] = {
        "grant_type": _DEVICE,
        "client_id": provider.client_id,
        "device_code": device.device_code,
        "code_verifier": attempt.verifier,
    }
    return TokenRequest(provider.token_url, "form", fields)


def read_pending(answer: TokenAnswer, *, interval: float) -> float | None:
    """Seconds to wait before the next request; None if the answer is final."""
    if 200 <= answer.status < 300:
        return None
    code = decoded(answer.body).get("error")
    if code == "slow_down" or answer.status == 429:
        return interval + _SLOWER
    return interval if code == "authorization_pending" or answer.status >= 500 else None


def identity(tokens: Tokens) -> tuple[str, str]:
    """The account and the e-mail address of a login, from its answer or from the claims of its access token."""
    access_claims = claims(tokens.access.reveal())
    openai, profile = access_claims.get("https://api.openai.com/auth"), access_claims.get("https://api.openai.com/profile")
    account = openai.get("chatgpt_account_id") if isinstance(openai, dict) else None
    email = profile.get("email") if isinstance(profile, dict) else None
    return (
        tokens.account or (account if isinstance(account, str) else ""),
        tokens.email or (email if isinstance(email, str) else ""),
    )


def _of_query(query: Mapping[str, list[str]], attempt: Attempt) -> Code:
    found = {name: values[0] for name, values in query.items() if len(values) == 1}
    _check(found.get("state", ""), attempt)
    if found.get("error"):
        raise Denied(f"the provider refused the login: {error_code(found)}")
    if not found.get("code"):
        raise AuthorizationRefusal("the address has no code: copy the whole address that the browser shows")
    return Code(SecretValue(found["code"]))


def _check(state: str, attempt: Attempt) -> None:
    if not hmac.compare_digest(state.encode(), attempt.state.reveal().encode()):
        raise AuthorizationRefusal("the address belongs to another login: use the address that was printed last")


def _seconds(value: object, usual: float) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**6
    return float(value) if good else usual  # type: ignore[arg-type]


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
