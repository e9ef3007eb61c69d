"""The file of the state database: opens it safely, explains what is wrong with it, and moves a corrupt file aside."""

import os
import sqlite3
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Final

from equabot_broker.domain.errors import CannotStart
from equabot_broker.storage._state_tables import APPLICATION_ID, MIGRATIONS

_COMPANIONS: Final = ("", "-wal", "-shm")
_LOG_KEPT: Final = 4 * 1024 * 1024
"""The size in bytes to which the write-ahead log shrinks after its content is in the database."""

_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Result codes for a corrupt file, in contrast to problems of its disk or permissions."""

_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "free space on its volume",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable for the broker",
    sqlite3.SQLITE_CANTOPEN: "check that its directory exists, is writable for the broker and has free space",
    sqlite3.SQLITE_IOERR: "check whether its volume is full or failing",
    sqlite3.SQLITE_BUSY: "let only one broker use it",
}


class StateTooNew(CannotStart):
    """A newer broker wrote the state. The file is unchanged."""


class Damaged(sqlite3.DatabaseError):
    """The file is a database, but not a valid state of a broker."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def open_database(path: Path) -> sqlite3.Connection:
    """The connection of the only writer. Checks the database, migrates it to the current schema, and sets mode 0600.

    Creates the file and its directory. Raises StateTooNew, OSError, sqlite3.Error.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # SQLite would make it readable for all users. The files of the log get the same mode.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=0.2)
    try:
        version = _version(db, path)
        with suppress(OSError):
            path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute(f"PRAGMA journal_size_limit = {_LOG_KEPT}")
        db.execute("PRAGMA cache_size = -512")
        _check(db)
        _migrate(db, version)
        # From here on the event loop does not wait for locks.
        db.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, path: Path) -> int:
    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if empty:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise Damaged("it is a database of another program")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StateTooNew(
            f"a newer broker wrote {path} (state version {version}; this broker supports {len(MIGRATIONS)}): run the newer"
            " broker, or move the file away and lose the leases in it. The file is unchanged"
        )
    return version


def _check(db: sqlite3.Connection) -> None:
    found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if found != "ok":
        raise Damaged(" ".join(found.split()))


def _migrate(db: sqlite3.Connection, version: int) -> None:
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        for statement in step:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that only reads and needs no space on the disk, for use after `open_database` failed.

    Raises StateTooNew, sqlite3.Error.
    """
    if not path.stat().st_size:
        raise sqlite3.OperationalError("it is empty")
    # An existing write-ahead log must be read as well. With exclusive locking this needs no shared memory file.
    logged = path.with_name(path.name + "-wal").exists()
    place = f"{path.absolute().as_uri()}?{'mode=rw' if logged else 'immutable=1'}"
    # A running broker holds the lock until it ends: a longer wait does not help.
    db = sqlite3.connect(place, uri=True, isolation_level=None, timeout=0.2)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        _version(db, path)
    except BaseException:
        db.close()
        raise
    return db


def fold_log(path: Path) -> None:
    """Copies the write-ahead log into the database, while writers continue. Raises sqlite3.Error.

    It waits for the disk (fsync): do not call it on the event loop.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def sync_log(path: Path) -> None:
    """Waits until the write-ahead log and its name are on the disk (fsync): do not call it on the event loop.

    `fold_log` has already brought older content to the disk. This function does not open the database itself: closing it
    would release the locks of SQLite. Raises OSError.
    """
    for place in (path.with_name(path.name + "-wal"), path.parent):
        with suppress(FileNotFoundError):
            opened = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def move_aside(path: Path, *, stamp: str) -> Path:
    """Renames the database and its log files to `<name>.corrupt-<stamp>`. Never replaces a file. Raises OSError."""
    names = (f"{path.name}.corrupt-{stamp}{f'.{n}' if n else ''}" for n in count())
    aside = next(found for name in names if not (found := path.with_name(name)).exists())
    for companion in _COMPANIONS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
    return aside


def is_broken(error: Exception, *, reading: bool = False) -> bool:
    """Whether the file is corrupt, so that another attempt cannot succeed.

    While `reading`, a missing table or column (SQLITE_ERROR) and an invalid row count as corruption too.
    """
    strange = isinstance(error, (ValueError, TypeError)) or _code(error) == sqlite3.SQLITE_ERROR
    return _code(error) in _BROKEN or (reading and strange)


def explain(error: Exception) -> str:
    """The message of the error, with a remedy if one is known."""
    remedy = _REMEDIES.get(_code(error))
    return f"{error}: {remedy}" if remedy else str(error)


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_INTERNAL) & 0xFF


def digest_key_of(db: sqlite3.Connection) -> bytes:
    """The key of the digests in the state; empty before the first start."""
    row = db.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    return b"" if row is None else bytes(row[0])
