"""Lease tokens: an agent with a brokered lease holds one instead of a key. The broker stores only its digest."""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final, NamedTuple

from equabot_broker.domain.secret_value import SecretValue

PREFIX: Final = "eqb_"
"""The prefix of every token. No vendor uses it."""
BITS: Final = 256


class Token(NamedTuple):
    """A token and its digest. `secret` is None for a token that an earlier process made."""

    digest: bytes
    secret: SecretValue | None


NONE: Final = Token(b"", None)
"""The token of a raw lease."""
_FORM: Final = re.compile(PREFIX + "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def made(chance: bytes) -> Token:
    """Makes a token from 32 random bytes. Raises ValueError for another length."""
    if len(chance) * 8 != BITS:
        raise ValueError(f"a token is made of {BITS // 8} bytes, not of {len(chance)}")
    text = PREFIX + urlsafe_b64encode(chance).decode().rstrip("=")
    return Token(digest(text), SecretValue(text))


def digest(token: str) -> bytes:
    """The SHA-256 of a token, under which it is stored. Empty for a text that does not have the form of a token."""
    return sha256(token.encode()).digest() if _FORM.fullmatch(token) else b""
