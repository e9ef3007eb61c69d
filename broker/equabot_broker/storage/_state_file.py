"""The state database as a file: opening it safely, judging what is wrong with it, moving a broken one out of the way."""

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
"""Bytes the write-ahead log may keep once its content is in the database."""

_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Result codes that blame the file's content rather than its surroundings."""

_REMEDIES: Final = {
    sqlite3.SQLITE_FULL: "free space on its volume",
    sqlite3.SQLITE_READONLY: "make the file and its directory writable for the broker",
    sqlite3.SQLITE_CANTOPEN: "make its directory exist, writable for the broker and with space left",
    sqlite3.SQLITE_IOERR: "see whether its volume is full or failing",
    sqlite3.SQLITE_BUSY: "let one broker alone use it",
}


class StateTooNew(CannotStart):
    """The state was written by a newer broker. It has not been touched."""


class Damaged(sqlite3.DatabaseError):
    """It opens, but is not, or no longer, a broker's state."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def open_database(path: Path) -> sqlite3.Connection:
    """A connection for the one writer, to a database that is checked, in this version's schema, and 0600.

    Creates what is missing. Raises StateTooNew, OSError, sqlite3.Error.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # SQLite would create it readable for everyone; its companions take over the mode.
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
        # From here on the event loop waits for nobody.
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
        raise Damaged("it is another program's database")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise StateTooNew(
            f"{path} was written by a newer broker (state version {version}; this one knows {len(MIGRATIONS)}): run that"
            " version again, or move the file away and lose the leases in it. Nothing was changed"
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
    """A connection that needs no space on the disk and does not write, for when `open_database` fails.

    Raises StateTooNew, sqlite3.Error.
    """
    if not path.stat().st_size:
        raise sqlite3.OperationalError("it is empty")
    # Where a write-ahead log is left it has to be read too, for which exclusive locking needs no shared memory file.
    logged = path.with_name(path.name + "-wal").exists()
    place = f"{path.absolute().as_uri()}?{'mode=rw' if logged else 'immutable=1'}"
    # A running broker holds it as long as it runs: waiting brings nothing.
    db = sqlite3.connect(place, uri=True, isolation_level=None, timeout=0.2)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        _version(db, path)
    except BaseException:
        db.close()
        raise
    return db


def fold_log(path: Path) -> None:
    """Copies what is in the write-ahead log into the database. Waits for the disk (fsync), so not on the event loop; writers go
    on meanwhile. Raises sqlite3.Error.
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def sync_log(path: Path) -> None:
    """Waits until the write-ahead log and its name are on the disk (fsync), so not on the event loop. What has left the log was
    brought to the disk when it was folded. Raises OSError.

    The database itself is not opened here: closing it would give up SQLite's locks on it.
    """
    for place in (path.with_name(path.name + "-wal"), path.parent):
        with suppress(FileNotFoundError):
            opened = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def move_aside(path: Path, *, stamp: str) -> Path:
    """Renames the database and its companions to `<name>.corrupt-<stamp>`, never over another file. Raises OSError."""
    names = (f"{path.name}.corrupt-{stamp}{f'.{n}' if n else ''}" for n in count())
    aside = next(found for name in names if not (found := path.with_name(name)).exists())
    for companion in _COMPANIONS:
        with suppress(FileNotFoundError):
            path.with_name(path.name + companion).rename(aside.with_name(aside.name + companion))
    return aside


def is_broken(error: Exception, *, reading: bool = False) -> bool:
    """Whether the file's content is to blame, so that waiting does not help.

    While `reading` so are a table or column that is missing (SQLITE_ERROR) and rows that no broker wrote.
    """
    strange = isinstance(error, (ValueError, TypeError)) or _code(error) == sqlite3.SQLITE_ERROR
    return _code(error) in _BROKEN or (reading and strange)


def explain(error: Exception) -> str:
    """What is wrong and what to do, for a person."""
    remedy = _REMEDIES.get(_code(error))
    return f"{error}: {remedy}" if remedy else str(error)


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_INTERNAL) & 0xFF


def digest_key_of(db: sqlite3.Connection) -> bytes:
    """The key that the state's digests are made with; empty where there is none yet."""
    row = db.execute("SELECT value FROM meta WHERE name = 'digest_key'").fetchone()
    return b"" if row is None else bytes(row[0])
