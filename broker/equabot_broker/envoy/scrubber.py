"""Finding secrets in a stream of bytes, whatever its chunks, and blanking them out."""

from collections.abc import Iterable
from typing import Final

_BLANK: Final = b"*"


class Scrubber:
    """Blanks every occurrence of the secrets with as many asterisks: lengths stay, and with them what counts bytes.

    Only the secrets as they are: one that was encoded (base64, percent signs, compression) is not found.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        # Longest first: one may be a part of another.
        self._secrets = tuple(sorted({secret for secret in secrets if secret}, key=len, reverse=True))
        self._kept = b""

    def feed(self, chunk: bytes, *, last: bool = False) -> bytes:
        """What can be handed on: all but an end that may be a secret's beginning, which comes with what is fed next."""
        text = self._kept + chunk
        for secret in self._secrets:
            text = text.replace(secret, _BLANK * len(secret))
        cut = len(text) if last else len(text) - max((_beginning(secret, text) for secret in self._secrets), default=0)
        self._kept = text[cut:]
        return text[:cut]

    def blank(self, text: bytes) -> bytes:
        """A text that is whole, with the secrets blanked out. What was fed does not matter."""
        for secret in self._secrets:
            text = text.replace(secret, _BLANK * len(secret))
        return text

    def occurs(self, name: str) -> bool:
        """Whether a secret is in the name of a header, which has no upper case any more."""
        return any(secret.lower() in name.lower().encode() for secret in self._secrets)


def _beginning(secret: bytes, text: bytes) -> int:
    """How many bytes at the text's end are the beginning of the secret."""
    longest = min(len(secret) - 1, len(text))
    return next((size for size in range(longest, 0, -1) if text.endswith(secret[:size])), 0)
