"""Stores encrypted with a key that lies elsewhere: AES-256-GCM, the key from a file that may hold several of them.

The first key of the file seals, every one of them opens: to change the key, put the new one on a line above. The file is read
whenever it is needed, so that a key that is exchanged is used at once. `cryptography` is imported with the first use.

What is sealed is bound to the store that it is and to a number that grows with each write (ADR 24). So a store in another's
place and an older copy are refused, and once a store is sealed so, neither text in the open nor the older form, which was bound
to nothing, is taken for it.
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
"""By how much an accepted copy is put ahead of what is known here: another process may have seen more."""
_ACCEPT: Final = "if an operator put it there, as from a backup, accept it with `equabot doctor --accept-restored`"
_KEY: Final = 32
_NONCE: Final = 12
_KEY_FILE_MAX: Final = 64 << 10
_KID: Final = re.compile("[0-9a-f]{8}")
_STORE: Final = re.compile(r"agents/[A-Za-z0-9][A-Za-z0-9._-]{0,62}/agent/auth-profiles\.json")


@dataclass(frozen=True, slots=True)
class Opened:
    """A store's text. `number` is the write that it is of, 0 for one without; `doubts` are why it should be written again."""

    text: bytes
    number: int = 0
    doubts: tuple[str, ...] = ()


class Seal:
    """The keys in a file, and what is known of the stores that they seal: `record` is where that is kept."""

    def __init__(self, key_file: Path, *, record: Path) -> None:
        self.key_file = key_file
        self.record = SealRecord(record)

    def of(self, name: str) -> "StoreSeal":
        """The seal of one store. The name is the store's own, the same wherever its home is."""
        return StoreSeal(self, name)

    def check(self) -> None:
        """Raises StoreFault where others can read or change the key, as ssh does. A key that is not there yet is none."""
        doubt = file_doubt(self.key_file, secret=True)
        if doubt is not None:
            raise StoreFault(f"the key file {doubt}")

    def keys(self) -> list[bytes]:
        """Every key, the one that seals first. Raises StoreFault where there is none."""
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


class StoreSeal:
    """Seals and opens one store. Fulfils `auth_profiles.Sealing`."""

    def __init__(self, seal: Seal, name: str) -> None:
        self.key_file = seal.key_file
        self._seal = seal
        self._name = name

    def seal(self, text: bytes, *, leap: bool = False) -> tuple[bytes, int]:
        """The file's content for a store's text, and its number. `leap`: ahead of everything that any process has seen. Raises
        StoreFault where there is no key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  (costs 7 MiB)

        keys = self._seal.keys()
        key, nonce = keys[0], os.urandom(_NONCE)
        number = self._seal.record.number(self._name, keys, anew=leap) + (_LEAP if leap else 1)
        sealed = {
            "alg": _ALGORITHM,
            "kid": key_name(key),
            "store": self._name,
            "number": number,
            "nonce": base64.b64encode(nonce).decode(),
            "data": base64.b64encode(AESGCM(key).encrypt(nonce, text, _bound_to(self._name, number))).decode(),
        }
        return (json.dumps({"version": 1, "sealed": sealed}, indent=2) + "\n").encode(), number

    def written(self, number: int, *, anew: bool = False) -> None:
        """The content of that number is in the file: nothing older is accepted. `anew`: also where the record was altered."""
        with suppress(StoreFault):  # the store is written; that the record is not is said by the next who reads it
            self._seal.record.note(self._name, number, self._seal.keys(), anew=anew)

    def unseal(self, content: bytes, *, accepting: bool = False) -> Opened:
        """The store's text. `accepting`: also of an older copy, of another store, or in the open.

        Raises Malformed for what was altered or is not this store's newest, StoreFault where the key or the record is missing.
        """
        contents = decode(content, largest=2 * LARGEST) if b'"sealed"' in content else None
        sealed = contents.get("sealed") if isinstance(contents, dict) else None
        if sealed is None:
            return self._in_the_open(content, accepting=accepting)
        nonce, data = (_bytes(sealed, name) for name in ("nonce", "data"))
        bound = isinstance(sealed, dict) and sealed.get("alg") == _ALGORITHM
        if not isinstance(sealed, dict) or not (bound or sealed.get("alg") == _UNBOUND) or len(nonce) != _NONCE:
            raise Malformed("it is sealed in a way this program does not know: use a newer program")
        keys = self._seal.keys()
        key = self._named(sealed.get("kid"), keys)
        store, number = sealed.get("store"), sealed.get("number")
        if not bound:
            text = _opened(key, nonce, data, _UNBOUND_FOR)
            self._refuse_after_sealed(
                "is sealed in the older form, and this store was in the newer one", keys, accepting=accepting
            )
            return Opened(text, doubts=("is sealed in an older form",))
        if not isinstance(store, str) or type(number) is not int:
            raise Malformed("it was altered since it was sealed: restore it from a backup")
        text = _opened(key, nonce, data, _bound_to(store, number))
        if accepting:
            self._seal.record.remember(self._name, number)
        else:
            self._refuse_other(store)
            self._refuse_older(number, keys)
        stale = () if key == keys[0] else ("is not sealed with the present key",)
        return Opened(text, number, stale + self._unrecorded(number, keys, accepting=accepting))

    def _named(self, named: object, keys: list[bytes]) -> bytes:
        key = next((key for key in keys if key_name(key) == named), None)
        if key is not None:
            return key
        shown = named if isinstance(named, str) and _KID.fullmatch(named) else "of another kind"
        have = ", ".join(map(key_name, keys))
        raise StoreFault(f"it is sealed with key {shown}, and {self.key_file} has {have}: add that key as another line")

    def _in_the_open(self, content: bytes, *, accepting: bool) -> Opened:
        if not accepting and self._seal.record.exists(self._name):
            self._refuse_after_sealed("is not sealed, and this store was", self._seal.keys(), accepting=False)
        return Opened(content, doubts=("is not sealed with the present key",))

    def _refuse_after_sealed(self, what: str, keys: list[bytes], *, accepting: bool) -> None:
        if not accepting and self._seal.record.number(self._name, keys):
            raise Malformed(f"it {what}: {_ACCEPT}")

    def _refuse_other(self, store: str) -> None:
        if store != self._name:
            shown = store if _STORE.fullmatch(store) else "another store"
            raise Malformed(f"it is {shown} in the place of {self._name}: {_ACCEPT}")

    def _refuse_older(self, number: int, keys: list[bytes]) -> None:
        newest = self._seal.record.number(self._name, keys)
        if number < newest:
            raise Malformed(f"it is an older copy (write {number}, and write {newest} was seen here): {_ACCEPT}")

    def _unrecorded(self, number: int, keys: list[bytes], *, accepting: bool) -> tuple[str, ...]:
        if accepting or self._seal.record.note(self._name, number, keys, known_only=True):
            return ()
        return (f"has no entry in {self._seal.record.file}, by which an older copy would be noticed",)


def _parsed(content: bytes, path: Path) -> Iterator[bytes]:
    for number, line in enumerate(content.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        key = _key(text)
        if key is None:
            raise StoreFault(
                f"line {number} of the key file {path} is no key of 32 bytes, in base64 or hex: correct or remove it"
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
        raise Malformed("it was altered since it was sealed: restore it from a backup") from None
