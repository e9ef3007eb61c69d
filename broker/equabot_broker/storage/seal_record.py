"""The newest write of each sealed store that this broker has seen. It makes an older copy detectable, also after a restart.

The record is a file in the home of the broker, outside the stores. It holds a number for each store, and a digest of all
numbers made with a key of the seal. A user who can write a store, but not this file, cannot restore an older copy unnoticed.
A user who can write both can, unless a process that saw the newer number still runs. The file contains no secret.
"""

import hashlib
import hmac
import json
import threading
from pathlib import Path
from typing import Any, Final

from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.ports import StoreFault
from equabot_broker.storage.edited_file import Unwritable, edit_file

_LARGEST: Final = 1 << 20
_FOR: Final = b"equabot seal record 1"


def key_name(key: bytes) -> str:
    """The public identifier of a key. It reveals nothing of the key."""
    return hashlib.sha256(key).hexdigest()[:8]


class SealRecord:
    """The record in a file. Numbers only grow, in this process even if the file cannot be written. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._seen: dict[str, int] = {}
        self._mutex = threading.Lock()

    def exists(self, store: str) -> bool:
        """Whether the record may have a number for the store."""
        return store in self._seen or self.file.exists()

    def number(self, store: str, keys: list[bytes], *, restart: bool = False) -> int:
        """The newest number of the store, or 0. Raises StoreFault for a file that cannot be read or was altered.

        With `restart`, a file that was altered counts as empty.
        """
        return max(self._seen.get(store, 0), self._read(keys, restart=restart).get(store, 0))

    def remember(self, store: str, number: int) -> None:
        """Remembers a number in this process only."""
        with self._mutex:
            self._seen[store] = max(number, self._seen.get(store, 0))

    def note(self, store: str, number: int, keys: list[bytes], *, restart: bool = False, known_only: bool = False) -> bool:
        """Records a number, and returns whether the file has an entry for the store.

        `restart`: a file that was altered is started again. `known_only`: no new entry is added. Raises StoreFault like
        `number`.
        """
        self.remember(store, number)
        found = self._read(keys, restart=restart)
        if found.get(store, 0) >= number:
            return True
        if known_only and store not in found:
            return False

        def change(content: bytes) -> bytes:
            numbers = _numbers(content, keys, self.file, restart=restart)
            numbers[store] = max(number, numbers.get(store, 0))
            return _content(numbers, keys[0])

        try:
            edit_file(self.file, change, mode=0o600)
        except Unwritable:
            return store in found
        return True

    def _read(self, keys: list[bytes], *, restart: bool = False) -> dict[str, int]:
        try:
            return _numbers(read_whole(self.file, limit=_LARGEST), keys, self.file, restart=restart)
        except FileNotFoundError:
            return {}
        except Unreadable as unreadable:
            raise StoreFault(str(unreadable)) from None


def _numbers(content: bytes, keys: list[bytes], file: Path, *, restart: bool) -> dict[str, int]:
    if not content:
        return {}
    try:
        written: Any = json.loads(content)
        numbers = {str(store): int(number) for store, number in written["numbers"].items()}
        key = next(key for key in keys if key_name(key) == written["kid"])
        sound = hmac.compare_digest(str(written["digest"]), _digest(numbers, key))
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError, StopIteration):
        sound, numbers = False, {}
    if not sound and not restart:
        raise StoreFault(
            f"{file} was altered, or was written with a key that is no longer in the key file of the seal: add that key as"
            " another line. If you trust the stores as they are now, run `equabot doctor --accept-restored` instead"
        )
    return numbers if sound else {}


def _content(numbers: dict[str, int], key: bytes) -> bytes:
    written = {"version": 1, "numbers": numbers, "kid": key_name(key), "digest": _digest(numbers, key)}
    return (json.dumps(written, indent=2) + "\n").encode()


def _digest(numbers: dict[str, int], key: bytes) -> str:
    own = hmac.digest(key, _FOR, "sha256")
    return hmac.new(own, json.dumps(numbers, sort_keys=True).encode(), "sha256").hexdigest()
