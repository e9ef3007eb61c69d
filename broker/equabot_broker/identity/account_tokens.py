"""Reads tokens of Kubernetes service accounts, and checks their claims.

They are JSON Web Tokens (RFC 7519), signed as in RFC 7515. This module verifies no signature: its result counts only after the
issuer or the signature confirms it. No error has a part of a token.
"""

import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from equabot_broker.domain.errors import Unidentified
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.parsing.untrusted_json import Malformed, decode

LARGEST: Final = 8192
"""The maximum number of characters of a token; usual ones have about a thousand."""

_SUBJECT: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SKEW: Final = 60.0
"""Seconds by which the clock of the issuing node may be ahead."""
_LATEST: Final = 253_402_300_799  # the end of the year 9999


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountToken:
    """The claims of a token. `account` is `namespace/name`. Instants are in seconds since the epoch. `not_before` is 0 if it
    is missing. `algorithm` and `key_id` are from its header."""

    token: SecretValue
    algorithm: str
    key_id: str
    issuer: str
    account: str
    audiences: tuple[str, ...]
    expires_at: float
    not_before: float

    def check_audience(self, audience: str) -> None:
        """Raises Unidentified unless the token is for this audience."""
        if audience not in self.audiences:
            raise Unidentified(
                f"the token is not for audience {audience!r}: send one that was projected for it, never the token for"
                " the Kubernetes API"
            )

    def check_times(self, now: float) -> None:
        """Raises Unidentified unless the token is valid at `now`."""
        if now >= self.expires_at:
            raise Unidentified("the token has expired: read the file, in which it is renewed, for every call")
        if now + _SKEW < self.not_before:
            raise Unidentified("the token is not valid yet: set the clocks of the cluster and of the broker")

    def signed(self) -> tuple[bytes, bytes]:
        """The signed part, and the signature."""
        covered, _, signature = self.token.reveal().rpartition(".")
        return covered.encode(), base64url(signature) or b""


def read_token(token: SecretValue) -> AccountToken:
    """The claims of the token. Raises Unidentified if it is not the token of a service account."""
    text = token.reveal()
    if len(text) > LARGEST or not _FORM.fullmatch(text):
        raise Unidentified(
            f"the token is not a JSON Web Token of up to {LARGEST} characters: send the token of a service account"
        )
    parts = [base64url(part) for part in text.split(".")]
    if None in parts:
        raise Unidentified("the token's base64url is not canonical: send the token of a service account, unchanged")
    head, said = (_object(part) for part in parts[:2])
    if "crit" in head:
        # RFC 7515, 4.1.11: an unknown extension may change the meaning of the token.
        raise Unidentified("the token has a `crit` header, which is not supported: send the token of a service account")
    subject = _SUBJECT.fullmatch(_text(said, "sub"))
    if subject is None:
        raise Unidentified("the token is not that of a service account: the broker identifies callers by service account only")
    audiences = said.get("aud")
    return AccountToken(
        token=token,
        algorithm=_text(head, "alg"),
        key_id=_text(head, "kid"),
        issuer=_text(said, "iss"),
        account=f"{subject[1]}/{subject[2]}",
        audiences=tuple(each for each in (audiences if isinstance(audiences, list) else [audiences]) if isinstance(each, str)),
        expires_at=_end(said),
        not_before=_beginning(said),
    )


def account_of(username: str) -> str | None:
    """`namespace/name` from a user name of the Kubernetes API; None if the user is not a service account."""
    subject = _SUBJECT.fullmatch(username)
    return f"{subject[1]}/{subject[2]}" if subject else None


def base64url(text: str) -> bytes | None:
    """The bytes of an unpadded base64url text (RFC 7515, 2); None unless the text is canonical.

    Decoders ignore the spare bits of the last character, so one token would otherwise have several forms.
    """
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Error, ValueError):
        return None
    return data if urlsafe_b64encode(data).decode().rstrip("=") == text else None


def _object(part: bytes | None) -> Mapping[str, object]:
    try:
        found = decode(part, largest=LARGEST) if part and part.startswith(b"{") else None
    except Malformed:
        found = None
    if not isinstance(found, dict):
        raise Unidentified("the token is not a JSON Web Token: send the token of a service account")
    return found


def _text(said: Mapping[str, object], name: str) -> str:
    value = said.get(name)
    return value if isinstance(value, str) else ""


def _end(said: Mapping[str, object]) -> float:
    """0 for a missing or impossible value: a token without an end has expired."""
    value = said.get("exp")
    return float(value) if _is_instant(value) else 0.0


def _beginning(said: Mapping[str, object]) -> float:
    """0 if it is missing. Infinite for an impossible value: such a token never becomes valid."""
    value = said.get("nbf", 0)
    return float(value) if _is_instant(value) else math.inf


def _is_instant(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST
