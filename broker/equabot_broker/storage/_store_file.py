"""The file of a store: checked and read as a whole, replaced atomically and durably."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from equabot_broker.files.ownership import directory_doubt, file_doubt
from equabot_broker.files.reading import Unreadable, read_some
from equabot_broker.formats.auth_document import AuthDocument, excessive, parse, serialize
from equabot_broker.parsing.untrusted_json import LARGEST, Malformed
from equabot_broker.ports import StoreFault
from equabot_broker.storage.replacing import replace_file
from equabot_broker.storage.sealing import Opened

_LOOKS: Final = 3
_BETWEEN_LOOKS: Final = 0.03
_SEALED_MORE: Final = 2
"""The longest sealed text, as a multiple of the plain text."""


class Sealing(Protocol):
    """Encrypts a store with a key in a file."""

    @property
    def key_file(self) -> Path:
        """The file of the key."""

    def seal(self, text: bytes, *, leap: bool = False) -> tuple[bytes, int]:
        """The file's content for a store's text, and its number. Raises StoreFault."""

    def written(self, number: int, *, restart: bool = False) -> None:
        """The content of that number is in the file."""

    def unseal(self, content: bytes, *, accepting: bool = False) -> Opened:
        """The store's text in the file's content. Raises Malformed, StoreFault."""


@dataclass(frozen=True, slots=True)
class LoadedStore:
    """A store as it was read. `content` is None without a file. `doubts` say why it should be sealed again."""

    document: AuthDocument
    content: bytes | None = field(default=None, repr=False)
    doubts: tuple[str, ...] = ()


class StoreFile:
    """The file at a path. The path may be a link."""

    def __init__(self, path: Path, seal: Sealing | None) -> None:
        self.path = path
        self.files = (path,) if seal is None else (path, seal.key_file)
        self._seal = seal

    def real(self) -> Path:
        """The path without links. Raises StoreFault for a link to a path that does not exist."""
        real = Path(os.path.realpath(self.path))
        if os.path.islink(self.path) and not os.path.lexists(real):  # noqa: PTH114  (does not raise)
            raise StoreFault(f"{self.path} is a link to a path that does not exist: correct it or remove it")
        return real

    def load(self, *, accepting: bool = False) -> LoadedStore:
        """Reads the file. `accepting`: an older copy, or the store of another agent, is read as well. Raises StoreFault."""
        fault = ""
        for look in range(_LOOKS):
            if look:
                # OpenClaw writes in place: a file that it is writing looks malformed.
                threading.Event().wait(_BETWEEN_LOOKS)
            content = self._content()
            if content is None:
                return LoadedStore(AuthDocument())
            try:
                if self._seal is None:
                    return LoadedStore(parse(content), content)
                opened = self._seal.unseal(content, accepting=accepting)
                return LoadedStore(parse(opened.text), content, opened.doubts)
            except Malformed as error:
                fault = f"{self.path} cannot be used: {error}. The file is unchanged"
            except StoreFault as error:
                raise StoreFault(f"{self.path} cannot be used: {error}") from None
        raise StoreFault(fault)

    def save(self, document: AuthDocument, *, accepting: bool = False) -> bytes:
        """Writes the document, and returns the content of the file. Raises StoreFault; the file is unchanged then."""
        real = self.real()
        text = serialize(document)
        if len(text) > LARGEST:
            raise StoreFault(f"{self.path} would become larger than {LARGEST >> 20} MiB: remove profiles that are not needed")
        if excess := excessive(document):
            raise StoreFault(f"{self.path} cannot be written, because {excess}")
        try:
            content, number = (text, 0) if self._seal is None else self._seal.seal(text, leap=accepting)
        except StoreFault as error:
            raise StoreFault(f"{self.path} cannot be sealed: {error}") from None
        try:
            owner = real.stat().st_uid if real.exists() else os.geteuid()
            if owner != os.geteuid():
                raise StoreFault(f"{self.path} belongs to user {owner} and is not replaced: chown it to {os.geteuid()}")
            replace_file(real, content)
        except OSError as error:
            raise self.unusable("written", error) from None
        if self._seal is not None:
            self._seal.written(number, restart=accepting)
        return content

    def is_open_to_others(self) -> bool:
        """Whether other users than its owner have any access to it."""
        return file_doubt(self.real(), secret=True, anyones=True, strict=True) is not None

    def doubts(self) -> Iterator[str]:
        """Problems of its permissions that do not prevent its use."""
        if self.is_open_to_others():
            yield f"other users than its owner can access {self.path}: run `equabot doctor --fix`, or chmod 600 it"

    def unusable(self, done: str, error: OSError) -> StoreFault:
        """The fault for an error of the operating system. `done` is the participle of the action that failed."""
        where = self.path.parent
        remedy = f"let user {os.geteuid()} read and write {where} and the files in it, and check the free space on its volume"
        return StoreFault(f"{self.path} cannot be {done} ({error.strerror}): {remedy}")

    def _content(self) -> bytes | None:
        real = self.real()
        doubt = directory_doubt(real.parent) or file_doubt(real, secret=False, anyones=True)
        if doubt is not None:
            raise StoreFault(f"{self.path} is not used, because {doubt}, or run `equabot doctor --fix`")
        return read_trusted(real, limit=LARGEST * _SEALED_MORE, shown=self.path)


def read_trusted(path: Path, *, limit: int, shown: Path) -> bytes | None:
    """The content of a regular file that this user or root owns, at most one byte more than the limit.

    None if the file does not exist. Raises StoreFault for another owner, and for a file that cannot be read.
    """
    try:
        found = read_some(path, limit=limit, shown=shown)
    except FileNotFoundError:
        return None
    except Unreadable as unreadable:
        fault = str(unreadable)
    else:
        owner = found.status.st_uid
        if owner in (os.geteuid(), 0):
            return found.data
        fault = f"{shown} belongs to user {owner} and is not used: chown it to {os.geteuid()}"
    raise StoreFault(fault)


def make_directory(path: Path) -> None:
    """Creates the directory and its missing parents, each with mode 0700. Raises OSError."""
    missing = [step for step in (path, *path.parents) if not step.exists()]
    for step in reversed(missing):
        with suppress(FileExistsError):
            step.mkdir(mode=0o700)
