"""Finds secrets in a stream of bytes, whatever its chunks are, and masks them."""

from collections.abc import Iterable
from typing import Final

_BLANK: Final = b"*"


class Scrubber:
    """Replaces each byte of a secret by an asterisk, so that lengths and counters stay correct.

    It finds secrets in plain form only: an encoded one (base64, percent encoding, compression) is not found.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        # Longest first: one secret may be a part of another.
        self._secrets = tuple(sorted({secret for secret in secrets if secret}, key=len, reverse=True))
        self._kept = b""

    def feed(self, chunk: bytes, *, last: bool = False) -> bytes:
        """Adds a chunk and returns what can be sent. An end that may begin a secret is held back until the next chunk."""
        text = self._kept + chunk
        for secret in self._secrets:
            text = text.replace(secret, _BLANK * len(secret))
        cut = len(text) if last else len(text) - max((_beginning(secret, text) for secret in self._secrets), default=0)
        self._kept = text[cut:]
        return text[:cut]

    def blank(self, text: bytes) -> bytes:
        """Masks the secrets in a complete text, independent of the stream."""
        for secret in self._secrets:
            text = text.replace(secret, _BLANK * len(secret))
        return text

    def occurs(self, name: str) -> bool:
        """Whether the name of a header, which is in lower case, has a secret in it."""
        return any(secret.lower() in name.lower().encode() for secret in self._secrets)


def _beginning(secret: bytes, text: bytes) -> int:
    """The number of bytes at the end of the text that begin the secret."""
    longest = min(len(secret) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(secret[:size])), 0)
