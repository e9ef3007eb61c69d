"""A store encrypted with a key that lies elsewhere: AES-256-GCM, the key from a file that may hold several of them.

The first key of the file seals, every one of them opens: to change the key, put the new one on a line above. The file is read
whenever it is needed, so that a key that is exchanged is used at once. `cryptography` is imported with the first use.
"""

import base64
import binascii
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broker.domain.auth_document import LARGEST, Malformed, decode
from broker.files.ownership import file_doubt
from broker.files.reading import Unreadable, read_whole
from broker.ports import StoreFault

_ALGORITHM: Final = "A256GCM"
_FOR: Final = b"equabot auth-profiles 1"
_KEY: Final = 32
_NONCE: Final = 12
_KEY_FILE_MAX: Final = 64 << 10
_KID: Final = re.compile("[0-9a-f]{8}")


class Seal:
    """Seals and opens stores with the keys in a file. Fulfils `auth_profiles.Sealing`."""

    def __init__(self, key_file: Path) -> None:
        self.key_file = key_file

    def seal(self, text: bytes) -> bytes:
        """The file's content for a store's text. Raises StoreFault where there is no key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  (costs 7 MiB)

        key = self._keys()[0]
        nonce = os.urandom(_NONCE)
        sealed = {
            "alg": _ALGORITHM,
            "kid": _name(key),
            "nonce": base64.b64encode(nonce).decode(),
            "data": base64.b64encode(AESGCM(key).encrypt(nonce, text, _FOR)).decode(),
        }
        return (json.dumps({"version": 1, "sealed": sealed}, indent=2) + "\n").encode()

    def unseal(self, content: bytes) -> tuple[bytes, bool]:
        """The store's text, and whether it is sealed with the present key; text that is not sealed at all is given as it is.

        Raises Malformed for what was altered, StoreFault where the key is missing.
        """
        if b'"sealed"' not in content:
            return content, False
        contents = decode(content, largest=2 * LARGEST)
        sealed = contents.get("sealed") if isinstance(contents, dict) else None
        if sealed is None:
            return content, False
        nonce, data = (_bytes(sealed, name) for name in ("nonce", "data"))
        if not isinstance(sealed, dict) or sealed.get("alg") != _ALGORITHM or len(nonce) != _NONCE:
            raise Malformed("it is sealed in a way this program does not know: use a newer program")
        keys = self._keys()
        named = sealed.get("kid")
        key = next((key for key in keys if _name(key) == named), None)
        if key is None:
            shown = named if isinstance(named, str) and _KID.fullmatch(named) else "of another kind"
            have = ", ".join(map(_name, keys))
            raise StoreFault(f"it is sealed with key {shown}, and {self.key_file} has {have}: add that key as another line")
        return _opened(key, nonce, data), key == keys[0]

    def check(self) -> None:
        """Raises StoreFault where others can read or change the key, as ssh does. A key that is not there yet is none."""
        doubt = file_doubt(self.key_file, secret=True)
        if doubt is not None:
            raise StoreFault(f"the key file {doubt}")

    def _keys(self) -> list[bytes]:
        path = self.key_file
        try:
            content = read_whole(path, limit=_KEY_FILE_MAX, shown=f"the key file {path}")
        except FileNotFoundError:
            raise StoreFault(f"there is no key file {path}: create it, or correct seal.key_file") from None
        except Unreadable as unreadable:
            raise StoreFault(str(unreadable)) from None
        self.check()
        if len(content) == _KEY:
            return [content]
        keys = list(_parsed(content, path))
        if not keys:
            raise StoreFault(f"the key file {path} holds no key: write one into it, as `openssl rand -base64 32` makes it")
        return keys


def _parsed(content: bytes, path: Path) -> Iterator[bytes]:
    for number, line in enumerate(content.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        key = _key(text)
        if key is None:
            raise StoreFault(f"line {number} of the key file {path} is no key of 32 bytes, in base64 or hex: mend or remove it")
        yield key


def _key(text: bytes) -> bytes | None:
    try:
        key = bytes.fromhex(text.decode("ascii")) if len(text) == 2 * _KEY else _unbase64(text)
    except ValueError:
        return None
    return key if len(key) == _KEY else None


def _unbase64(text: bytes) -> bytes:
    padded = text.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    return base64.b64decode(padded + b"=" * (-len(padded) % 4), validate=True)


def _bytes(sealed: object, name: str) -> bytes:
    value = sealed.get(name) if isinstance(sealed, dict) else None
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (ValueError, binascii.Error):
        return b""


def _opened(key: bytes, nonce: bytes, data: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        return AESGCM(key).decrypt(nonce, data, _FOR)
    except InvalidTag:
        raise Malformed("it was altered since it was sealed: restore it from a backup") from None


def _name(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:8]
