"""`auth-profiles.json`, the seed system's store of an agent: the one door through which it is read and written.

A write replaces the whole file, and is safely on the disk before it counts. A file that cannot be understood is an error, and
stays as it is.
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
    """One agent's store. Blocking: in an event loop, call it in a thread. A store that is not there is empty.

    `files` are all those that decide what it holds.
    """

    def __init__(self, path: Path, *, clock: Clock, seal: Sealing | None = None) -> None:
        self.path = path
        self._clock = clock
        self._file = StoreFile(path, seal)
        self.files = self._file.files

    def read(self) -> AuthDocument:
        """What the store holds now. Raises StoreFault."""
        return self._file.load().document

    def inspect(self) -> tuple[AuthDocument, tuple[str, ...]]:
        """What it holds, and what is wrong with the file that does not keep it from being read. Raises StoreFault."""
        loaded = self._file.load()
        unsealed = (f"{self.path} {doubt}: run `equabot doctor --fix`" for doubt in loaded.doubts)
        return loaded.document, (*unsealed, *self._file.doubts())

    def stale_lock(self) -> Path | None:
        """A lock file beside it that a dead process left behind. Whoever writes the store next removes it."""
        return self._lock().left_behind()

    def is_locked(self) -> bool:
        """Whether a process of ours writes it, or refreshes a login in it, now. Changes nothing. Raises StoreFault."""
        return self._lock().held()

    def _lock(self) -> StoreLock:
        return StoreLock(self.path, self._file.real(), clock=self._clock, abandoned=threading.Event())

    def edit(self, change: Callable[[AuthDocument], AuthDocument], *, abandoned: threading.Event | None = None) -> AuthDocument:
        """Reads, changes and replaces the store under its lock, and returns it. An unchanged one is written only where the file
        is not as it should be: open to others, or not sealed with the present key.

        Raises StoreFault, and what `change` raises; nothing has changed then.
        """
        with self.locked(abandoned=abandoned) as locked:
            return locked.edit(change)

    def accept(self) -> bool:
        """Seals a store again that is an older copy, another agent's, or in the open in the place of a sealed one, and returns
        whether it was. For an operator who put it there. Raises StoreFault."""
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
        """The store, which nobody else writes while the context lasts, however long. Raises StoreFault."""
        held = self.lock(abandoned=abandoned, accepting=accepting)
        try:
            yield held
        finally:
            held.release()

    def lock(self, *, abandoned: threading.Event | None = None, accepting: bool = False) -> "Locked":
        """The same for those who give the lock back in another place. `abandoned`, once set, makes the waiting for it end.
        Raises StoreFault."""
        real = self._file.real()
        lock = StoreLock(self.path, real, clock=self._clock, abandoned=abandoned or threading.Event())
        try:
            make_directory(real.parent)
            lock.take()
            return Locked(self._file, lock, accepting=accepting)
        except OSError as error:
            lock.release()
            raise self._file.unusable("locked for writing", error) from None
        except BaseException:
            lock.release()
            raise


class Locked:
    """A store under its lock. Its methods may be called from any thread."""

    def __init__(self, file: StoreFile, lock: StoreLock, *, accepting: bool) -> None:
        self._file = file
        self._lock: StoreLock | None = lock
        self._mutex = threading.Lock()
        self._loaded = file.load(accepting=accepting)

    @property
    def document(self) -> AuthDocument:
        """The store as it was read or written last."""
        return self._loaded.document

    def replace(self, document: AuthDocument) -> None:
        """Writes the store. Raises StoreFault, also when somebody who ignores locks has written since it was read."""
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
        """Writes the store as it was read, ahead of every copy of it. Raises StoreFault."""
        with self._mutex:
            self._file.save(self._loaded.document, accepting=True)

    def release(self) -> None:
        """Gives the lock back, once what is being written is written. May be called again."""
        with self._mutex:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def _load(self) -> None:
        if self._lock is None:
            raise StoreFault(f"the lock of {self._file.path} was given back before this was written: try again")
        self._lock.retake()
        self._loaded = self._file.load()

    def _save(self, document: AuthDocument) -> None:
        loaded = self._loaded
        well_kept = loaded.content is None or (not loaded.doubts and not self._file.loose())
        if document.raw != loaded.document.raw or not well_kept:
            content = self._file.save(document)
            self._loaded = LoadedStore(document, content)
