"""Encrypts stores with AES-256-GCM and a key from a key file, which may hold several keys.

The first key of the file encrypts, and every key decrypts: to rotate the key, add the new one as the first line. The file is
read for each use, so that a new key is used at once. `cryptography` is imported at the first use.

Sealed text is bound to the name of its store and to a number that grows with each write (ADR 24). The store of another agent
and an older copy are therefore refused. The older format was bound to nothing. Once a store is sealed with a number, its
plain text and the older format are refused as well.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from equabot_broker.files.ownership import file_doubt
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.parsing.untrusted_json import LARGEST, Malformed, decode
from equabot_broker.ports import StoreFault
from equabot_broker.storage.seal_record import SealRecord, key_name

_ALGORITHM: Final = "A256GCM-bound"
_FOR: Final = "equabot auth-profiles 2"
_UNBOUND: Final = "A256GCM"
_UNBOUND_FOR: Final = b"equabot auth-profiles 1"
_LEAP: Final = 1 << 20
"""The distance of an accepted copy from the newest known number: another process may have seen higher numbers."""
_ACCEPT: Final = "if an operator restored it from a backup, accept it with `equabot doctor --accept-restored`"
_KEY: Final = 32
_NONCE: Final = 12
_KEY_FILE_MAX: Final = 64 << 10
_KID: Final = re.compile("[0-9a-f]{8}")
_STORE: Final = re.compile(r"agents/[A-Za-z0-9][A-Za-z0-9._-]{0,62}/agent/auth-profiles\.json")


@dataclass(frozen=True, slots=True)
class Opened:
    """The text of a store. `number` is the number of its write, or 0. `doubts` say why it should be written again."""

    text: bytes
    number: int = 0
    doubts: tuple[str, ...] = ()


class Seal:
    """The keys in a file. `record` is the file with the newest number of each sealed store."""

    def __init__(self, key_file: Path, *, record: Path) -> None:
        self.key_file = key_file
        self.record = SealRecord(record)

    def of(self, name: str) -> "StoreSeal":
        """The seal of one store. The name is the path of the store relative to the home."""
        return StoreSeal(self, name)

    def check(self) -> None:
        """Raises StoreFault if other users can read or change the key file, as ssh does. A missing file is accepted."""
        doubt = file_doubt(self.key_file, secret=True)
        if doubt is not None:
            raise StoreFault(f"the key file {doubt}")

    def keys(self) -> list[bytes]:
        """All keys; the first one encrypts. Raises StoreFault if there is no key."""
        path = self.key_file
        try:
            content = read_whole(path, limit=_KEY_FILE_MAX, shown=f"the key file {path}")
        except FileNotFoundError:
            raise StoreFault(f"the key file {path} does not exist: create it, or correct seal.key_file") from None
        except Unreadable as unreadable:
            raise StoreFault(str(unreadable)) from None
        self.check()
        if len(content) == _KEY:
            return [content]
        keys = list(_parsed(content, path))
        if not keys:
            raise StoreFault(f"the key file {path} has no key: write the output of `openssl rand -base64 32` into it")
        return keys


class StoreSeal:
    """Encrypts and decrypts one store. Implements `auth_profiles.Sealing`."""

    def __init__(self, seal: Seal, name: str) -> None:
        self.key_file = seal.key_file
        self._seal = seal
        self._name = name

    def seal(self, text: bytes, *, leap: bool = False) -> tuple[bytes, int]:
        """Encrypts the text. Returns the content of the file, and its number.

        `leap`: the number is above every number that another process may have seen. Raises StoreFault without a key.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  (costs 7 MiB)

        keys = self._seal.keys()
        key, nonce = keys[0], os.urandom(_NONCE)
        number = self._seal.record.number(self._name, keys, restart=leap) + (_LEAP if leap else 1)
        sealed = {
            "alg": _ALGORITHM,
            "kid": key_name(key),
            "store": self._name,
            "number": number,
            "nonce": base64.b64encode(nonce).decode(),
            "data": base64.b64encode(AESGCM(key).encrypt(nonce, text, _bound_to(self._name, number))).decode(),
        }
        return (json.dumps({"version": 1, "sealed": sealed}, indent=2) + "\n").encode(), number

    def written(self, number: int, *, restart: bool = False) -> None:
        """Records the number that is in the file now: older numbers are refused from now on.

        `restart`: a record that was altered is started again.
        """
        with suppress(StoreFault):  # the store is written; the next read reports the fault of the record
            self._seal.record.note(self._name, number, self._seal.keys(), restart=restart)

    def unseal(self, content: bytes, *, accepting: bool = False) -> Opened:
        """The text of the store. `accepting`: an older copy, another store and plain text are accepted too.

        Raises Malformed if the content was altered or is not the newest of this store, StoreFault without a key or record.
        """
        contents = decode(content, largest=2 * LARGEST) if b'"sealed"' in content else None
        sealed = contents.get("sealed") if isinstance(contents, dict) else None
        if sealed is None:
            return self._in_the_open(content, accepting=accepting)
        nonce, data = (_bytes(sealed, name) for name in ("nonce", "data"))
        bound = isinstance(sealed, dict) and sealed.get("alg") == _ALGORITHM
        if not isinstance(sealed, dict) or not (bound or sealed.get("alg") == _UNBOUND) or len(nonce) != _NONCE:
            raise Malformed("it is sealed in a format that this version does not support: use a newer version")
        keys = self._seal.keys()
        key = self._named(sealed.get("kid"), keys)
        store, number = sealed.get("store"), sealed.get("number")
        if not bound:
            text = _opened(key, nonce, data, _UNBOUND_FOR)
            self._refuse_after_sealed(
                "is sealed in the older format, but this store was sealed in the newer one", keys, accepting=accepting
            )
            return Opened(text, doubts=("is sealed in an older format",))
        if not isinstance(store, str) or type(number) is not int:
            raise Malformed("it was altered after it was sealed: restore it from a backup")
        text = _opened(key, nonce, data, _bound_to(store, number))
        if accepting:
            self._seal.record.remember(self._name, number)
        else:
            self._refuse_other(store)
            self._refuse_older(number, keys)
        stale = () if key == keys[0] else ("is not sealed with the current key",)
        return Opened(text, number, stale + self._unrecorded(number, keys, accepting=accepting))

    def _named(self, named: object, keys: list[bytes]) -> bytes:
        key = next((key for key in keys if key_name(key) == named), None)
        if key is not None:
            return key
        shown = named if isinstance(named, str) and _KID.fullmatch(named) else "of another kind"
        have = ", ".join(map(key_name, keys))
        raise StoreFault(f"it is sealed with key {shown}, but {self.key_file} has {have}: add that key as another line")

    def _in_the_open(self, content: bytes, *, accepting: bool) -> Opened:
        if not accepting and self._seal.record.exists(self._name):
            self._refuse_after_sealed("is not sealed, but this store was sealed", self._seal.keys(), accepting=False)
        return Opened(content, doubts=("is not sealed with the current key",))

    def _refuse_after_sealed(self, what: str, keys: list[bytes], *, accepting: bool) -> None:
        if not accepting and self._seal.record.number(self._name, keys):
            raise Malformed(f"it {what}: {_ACCEPT}")

    def _refuse_other(self, store: str) -> None:
        if store != self._name:
            shown = store if _STORE.fullmatch(store) else "another store"
            raise Malformed(f"it contains {shown} instead of {self._name}: {_ACCEPT}")

    def _refuse_older(self, number: int, keys: list[bytes]) -> None:
        newest = self._seal.record.number(self._name, keys)
        if number < newest:
            raise Malformed(f"it is an older copy (write {number}, but this broker has seen write {newest}): {_ACCEPT}")

    def _unrecorded(self, number: int, keys: list[bytes], *, accepting: bool) -> tuple[str, ...]:
        if accepting or self._seal.record.note(self._name, number, keys, known_only=True):
            return ()
        return (f"has no entry in {self._seal.record.file}, so that an older copy would not be detected",)


def _parsed(content: bytes, path: Path) -> Iterator[bytes]:
    for number, line in enumerate(content.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        key = _key(text)
        if key is None:
            raise StoreFault(
                f"line {number} of the key file {path} does not hold 32 bytes in base64 or hex: correct or remove it"
            )
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


def _bound_to(store: str, number: int) -> bytes:
    return json.dumps([_FOR, store, number]).encode()


def _opened(key: bytes, nonce: bytes, data: bytes, bound_to: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    try:
        return AESGCM(key).decrypt(nonce, data, bound_to)
    except InvalidTag:
        raise Malformed("it was altered after it was sealed: restore it from a backup") from None
