"""Reads and writes `auth-profiles.json`, the store of an agent in OpenClaw's format. All access goes through this module.

A write replaces the whole file, and returns when the file is safely on the disk. A malformed file is an error and stays
unchanged.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.ports import Clock, StoreFault
from equabot_broker.storage._store_file import LoadedStore, Sealing, StoreFile, make_directory
from equabot_broker.storage._store_lock import StoreLock

__all__ = ["AuthProfiles", "Locked", "Sealing"]


class AuthProfiles:
    """The store of one agent. Its methods block: an event loop calls them in a thread. A missing store counts as empty.

    `files` are the files on which its content depends.
    """

    def __init__(self, path: Path, *, clock: Clock, seal: Sealing | None = None) -> None:
        self.path = path
        self._clock = clock
        self._file = StoreFile(path, seal)
        self.files = self._file.files

    def read(self) -> AuthDocument:
        """The current content. Raises StoreFault."""
        return self._file.load().document

    def inspect(self) -> tuple[AuthDocument, tuple[str, ...]]:
        """The current content, and problems of the file that do not prevent reading it. Raises StoreFault."""
        loaded = self._file.load()
        unsealed = (f"{self.path} {doubt}: run `equabot doctor --fix`" for doubt in loaded.doubts)
        return loaded.document, (*unsealed, *self._file.doubts())

    def stale_lock(self) -> Path | None:
        """The lock file that a dead process left next to the store. The next write removes it."""
        return self._lock().stale_file()

    def is_locked(self) -> bool:
        """Whether a broker or a command is writing the store or refreshing a login in it. Raises StoreFault."""
        return self._lock().is_held()

    def _lock(self) -> StoreLock:
        return StoreLock(self.path, self._file.real(), clock=self._clock, abandoned=threading.Event())

    def edit(self, change: Callable[[AuthDocument], AuthDocument], *, abandoned: threading.Event | None = None) -> AuthDocument:
        """Reads, changes and writes the store under its lock, and returns it.

        An unchanged store is written only if other users can access the file, or if it is not sealed with the current key.
        Raises StoreFault, and what `change` raises; nothing has changed then.
        """
        with self.locked(abandoned=abandoned) as locked:
            return locked.edit(change)

    def accept(self) -> bool:
        """Accepts a store that an operator restored: an older copy, the store of another agent, or an unsealed store.

        Seals it again. Returns whether that was necessary. Raises StoreFault.
        """
        try:
            self._file.load()
        except StoreFault:
            pass
        else:
            return False
        with self.locked(accepting=True) as locked:
            locked.accept()
        return True

    @contextmanager
    def locked(self, *, abandoned: threading.Event | None = None, accepting: bool = False) -> Iterator["Locked"]:
        """The store, locked against every other writer while the context lasts. Raises StoreFault."""
        held = self.lock(abandoned=abandoned, accepting=accepting)
        try:
            yield held
        finally:
            held.release()

    def lock(self, *, abandoned: threading.Event | None = None, accepting: bool = False) -> "Locked":
        """Locks the store until `release`. When `abandoned` is set, waiting for the lock ends. Raises StoreFault."""
        real = self._file.real()
        lock = StoreLock(self.path, real, clock=self._clock, abandoned=abandoned or threading.Event())
        try:
            make_directory(real.parent)
            lock.acquire()
            return Locked(self._file, lock, accepting=accepting)
        except OSError as error:
            lock.release()
            raise self._file.unusable("locked for writing", error) from None
        except BaseException:
            lock.release()
            raise


class Locked:
    """A store under its lock. Thread-safe."""

    def __init__(self, file: StoreFile, lock: StoreLock, *, accepting: bool) -> None:
        self._file = file
        self._lock: StoreLock | None = lock
        self._mutex = threading.Lock()
        self._loaded = file.load(accepting=accepting)

    @property
    def document(self) -> AuthDocument:
        """The content as it was last read or written."""
        return self._loaded.document

    def replace(self, document: AuthDocument) -> None:
        """Writes the store. Raises StoreFault, also if a program that ignores the lock has written since the last read."""
        with self._mutex:
            before = self._loaded.content
            self._load()
            if self._loaded.content != before:
                raise StoreFault(f"{self._file.path} was changed by a program that ignores its lock: try again")
            self._save(document)

    def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        """Reads the store again, changes and writes it, and returns it. Raises StoreFault, and what `change` raises."""
        with self._mutex:
            self._load()
            self._save(change(self.document))
            return self.document

    def accept(self) -> None:
        """Writes the store as it was read, with a number above the number of every copy. Raises StoreFault."""
        with self._mutex:
            self._file.save(self._loaded.document, accepting=True)

    def release(self) -> None:
        """Releases the lock after a running write. Can be called again."""
        with self._mutex:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _load(self) -> None:
        if self._lock is None:
            raise StoreFault(f"the lock of {self._file.path} was released before this write: try again")
        self._lock.reacquire()
        self._loaded = self._file.load()

    def _save(self, document: AuthDocument) -> None:
        loaded = self._loaded
        well_kept = loaded.content is None or (not loaded.doubts and not self._file.is_open_to_others())
        if document.raw != loaded.document.raw or not well_kept:
            content = self._file.save(document)
            self._loaded = LoadedStore(document, content)
