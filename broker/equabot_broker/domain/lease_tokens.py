"""Lease tokens: what an agent with a brokered lease holds instead of a key. Opaque, recognisable, stored only as a digest."""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final, NamedTuple

from equabot_broker.domain.secret_value import SecretValue

PREFIX: Final = "eqb_"
"""Starts every token, and nothing else that a vendor hands out."""
BITS: Final = 256


class Token(NamedTuple):
    """A token and its digest; only the digest of one that was made by a process before this one."""

    digest: bytes
    secret: SecretValue | None


NONE: Final = Token(b"", None)
"""What a raw lease has."""
_FORM: Final = re.compile(PREFIX + "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def made(chance: bytes) -> Token:
    """The token of 32 random bytes. Raises ValueError for any other number of them."""
    if len(chance) * 8 != BITS:
        raise ValueError(f"a token is made of {BITS // 8} bytes, not of {len(chance)}")
    text = PREFIX + urlsafe_b64encode(chance).decode().rstrip("=")
    return Token(digest(text), SecretValue(text))


def digest(token: str) -> bytes:
    """What is stored of a token, and what it is found by: its SHA-256. Empty for a text that is no token."""
    return sha256(token.encode()).digest() if _FORM.fullmatch(token) else b""
