"""What a JSON Web Token says of itself (RFC 7519). No signature is verified here."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from equabot_broker.domain.untrusted_json import Malformed, decode

_LARGEST: Final = 256 << 10
"""Bytes of claims that are read."""


def claims(token: str) -> Mapping[str, object]:
    """What a JSON Web Token says of itself (RFC 7519), unverified; nothing where it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = decode(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_"), largest=_LARGEST)
    except (Malformed, binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
