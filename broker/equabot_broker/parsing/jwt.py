"""What a JSON Web Token says of itself (RFC 7519). No signature is verified here."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from equabot_broker.parsing.untrusted_json import Malformed, decode

_LARGEST: Final = 256 << 10
"""Bytes of claims that are read."""


def claims(token: str) -> Mapping[str, object]:
    """The claims of a token, unverified; empty where the text is not a JSON Web Token."""
    parts = token.split(".")
    return part(parts[1]) if len(parts) == 3 else {}


def part(encoded: str) -> Mapping[str, object]:
    """The JSON object in one part of a token; empty if it has no such object."""
    try:
        found = decode(base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_"), largest=_LARGEST)
    except (Malformed, binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
