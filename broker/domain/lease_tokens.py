"""Lease tokens: what an agent with a brokered lease holds instead of a key. Opaque, recognisable, stored only as a digest."""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from broker.domain.secret_value import SecretValue

PREFIX: Final = "eqb_"
"""Starts every token, and nothing else that a vendor hands out."""
BITS: Final = 256

_FORM: Final = re.compile(PREFIX + "[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def made(chance: bytes) -> SecretValue:
    """The token of 32 random bytes. Raises ValueError for any other number of them."""
    if len(chance) * 8 != BITS:
        raise ValueError(f"a token is made of {BITS // 8} bytes, not of {len(chance)}")
    return SecretValue(PREFIX + urlsafe_b64encode(chance).decode().rstrip("="))


def digest(token: str) -> bytes:
    """What is stored of a token, and what it is found by: its SHA-256. Empty for a text that is no token."""
    return sha256(token.encode()).digest() if _FORM.fullmatch(token) else b""
