"""A store as a file: read as a whole and with suspicion, replaced as a whole and safely on the disk."""

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
"""What sealing may make of a text, in its own sizes."""


class Sealing(Protocol):
    """How a store is encrypted, with the key in a file."""

    @property
    def key_file(self) -> Path:
        """That file."""

    def seal(self, text: bytes, *, leap: bool = False) -> tuple[bytes, int]:
        """The file's content for a store's text, and its number. Raises StoreFault."""

    def written(self, number: int, *, anew: bool = False) -> None:
        """The content of that number is in the file."""

    def unseal(self, content: bytes, *, accepting: bool = False) -> Opened:
        """The store's text in the file's content. Raises Malformed, StoreFault."""


@dataclass(frozen=True, slots=True)
class LoadedStore:
    """A store as it was read; `content` is None where there is no file. `doubts`: why it should be sealed again."""

    document: AuthDocument
    content: bytes | None = field(default=None, repr=False)
    doubts: tuple[str, ...] = ()


class StoreFile:
    """The file at a path, which may be a link to it."""

    def __init__(self, path: Path, seal: Sealing | None) -> None:
        self.path = path
        self.files = (path,) if seal is None else (path, seal.key_file)
        self._seal = seal

    def real(self) -> Path:
        """Where the path leads. Raises StoreFault where that is nowhere."""
        real = Path(os.path.realpath(self.path))
        if os.path.islink(self.path) and not os.path.lexists(real):  # noqa: PTH114  (which never raises)
            raise StoreFault(f"{self.path} is a link to nothing: correct it or remove it")
        return real

    def load(self, *, accepting: bool = False) -> LoadedStore:
        """What it holds. `accepting`: a sealed store also where it is an older copy or another's. Raises StoreFault."""
        fault = ""
        for look in range(_LOOKS):
            if look:
                # The seed's system writes in place: what it is in the midst of looks broken.
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
                fault = f"{self.path} is not usable: {error}. Nothing of it was changed"
            except StoreFault as error:
                raise StoreFault(f"{self.path} is not usable: {error}") from None
        raise StoreFault(fault)

    def save(self, document: AuthDocument, *, accepting: bool = False) -> bytes:
        """Writes the document, and returns the file's content. Raises StoreFault; the file is as it was then."""
        real = self.real()
        text = serialize(document)
        if len(text) > LARGEST:
            raise StoreFault(f"{self.path} would become larger than {LARGEST >> 20} MiB: remove what is not needed")
        if excess := excessive(document):
            raise StoreFault(f"{self.path} cannot be written, for {excess}")
        try:
            content, number = (text, 0) if self._seal is None else self._seal.seal(text, leap=accepting)
        except StoreFault as error:
            raise StoreFault(f"{self.path} cannot be sealed: {error}") from None
        try:
            owner = real.stat().st_uid if real.exists() else os.geteuid()
            if owner != os.geteuid():
                raise StoreFault(f"{self.path} belongs to user {owner}, so it is not replaced: chown it to {os.geteuid()}")
            replace_file(real, content)
        except OSError as error:
            raise self.unusable("written", error) from None
        if self._seal is not None:
            self._seal.written(number, anew=accepting)
        return content

    def loose(self) -> bool:
        """Whether others than its owner may do anything with it."""
        return file_doubt(self.real(), secret=True, anyones=True, strict=True) is not None

    def doubts(self) -> Iterator[str]:
        """What others may do with it that they should not, and that does not keep it from being used."""
        if self.loose():
            yield f"{self.path} is open to others than its owner: run `equabot doctor --fix`, or chmod 600 it"

    def unusable(self, done: str, error: OSError) -> StoreFault:
        """The fault for an error of the operating system; `done` is what it cannot be."""
        where = self.path.parent
        remedy = f"let user {os.geteuid()} read and write {where} and what is in it, with space left on its volume"
        return StoreFault(f"{self.path} cannot be {done} ({error.strerror}): {remedy}")

    def _content(self) -> bytes | None:
        real = self.real()
        doubt = directory_doubt(real.parent) or file_doubt(real, secret=False, anyones=True)
        if doubt is not None:
            raise StoreFault(f"{self.path} is not used, because {doubt}, or run `equabot doctor --fix`")
        return read_trusted(real, limit=LARGEST * _SEALED_MORE, shown=self.path)


def read_trusted(path: Path, *, limit: int, shown: Path) -> bytes | None:
    """The content of a plain file of ours or the administrator's, at most one byte more than the limit; None where there is
    none. Raises StoreFault for any other file, and for one that cannot be read."""
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
        fault = f"{shown} belongs to user {owner}, so it is not used: chown it to {os.geteuid()}"
    raise StoreFault(fault)


def make_directory(path: Path) -> None:
    """Creates the directory and those above it that are missing, each for its owner alone. Raises OSError."""
    missing = [step for step in (path, *path.parents) if not step.exists()]
    for step in reversed(missing):
        with suppress(FileExistsError):
            step.mkdir(mode=0o700)
