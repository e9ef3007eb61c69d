"""The persistent state in SQLite: leases, pins, orders, usage, versions, suspensions. Implements `ports.StateStore`.

It uses write-ahead logging without fsync. A commit survives the end of the process at once, and the end of the machine after
the next checkpoint. Neither can corrupt the database. All methods belong to the thread of the event loop.
"""

import asyncio
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.suspension import Suspension
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.ports import Clock, StoredState, StoredVersion
from equabot_broker.storage import _state_tables as tables
from equabot_broker.storage._state_file import (
    StateTooNew,
    digest_key_of,
    explain,
    fold_log,
    is_broken,
    move_aside,
    open_database,
    open_for_reading,
    sync_log,
)
from equabot_broker.telemetry.incidents import incident

__all__ = ["SqliteStateStore", "StateTooNew", "boot_id"]

_log = logging.getLogger(__name__)

_BOOT_ID_MAX: Final = 256
_RETRY_FIRST: Final = 0.1
_RETRY_CAP: Final = 5.0
_WRONG: Final = (sqlite3.Error, OSError, ValueError, TypeError)
"""Expected errors of the database; the last two mean an invalid value."""


def boot_id(path: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """The identifier of this boot of the machine, to which the steady clock belongs. Empty if the system has none."""
    try:
        return read_whole(path, limit=_BOOT_ID_MAX).decode().strip()
    except (FileNotFoundError, Unreadable):
        return ""


class SqliteStateStore:
    """State in one file with mode 0600. Nothing is read or written before `open` or `load`."""

    def __init__(self, path: Path, *, clock: Clock, boot_id: Callable[[], str] = boot_id) -> None:
        self._path = path
        self._clock = clock
        self._read_boot_id = boot_id
        self._boot = ""
        self._db: sqlite3.Connection | None = None
        self._opened = False
        self._closed = False
        self._digest_key = b""
        self._salvaged = StoredState()
        self._leases = tables.RowChanges(tables.LEASES)
        self._pins = tables.RowChanges(tables.PINS)
        self._orders = tables.RowChanges(tables.ORDERS)
        self._usage = tables.RowChanges(tables.USAGE)
        self._versions = tables.RowChanges(tables.VERSIONS)
        self._suspensions = tables.RowChanges(tables.SUSPENSIONS)
        self._changes = (self._leases, self._pins, self._orders, self._usage, self._versions, self._suspensions)
        self._suspended: dict[str, Suspension] = {}
        self._fault = ""
        self._log_fault = ""
        self._log_grew = False
        self._retry_at = 0.0
        self._retries: Iterator[float] = iter(())

    @property
    def fault(self) -> str:
        """Why it cannot write, and what to do. Empty if it can."""
        return self._fault or self._log_fault

    @property
    def digest_key(self) -> bytes:
        """The 32 random bytes that `SecretValue.digest` uses. They are part of the stored state."""
        self.open()
        return self._digest_key

    def open(self) -> None:
        """Opens the file, and creates or migrates it if necessary. Does nothing if it is open. Raises StateTooNew.

        A corrupt file is moved aside and replaced by a new one. If the file cannot be written, as much as possible is read,
        and each flush tries to write again.
        """
        if self._opened:
            return
        self._boot = self._read_boot_id()
        try:
            self._db = self._connect()
        except StateTooNew:
            raise
        except Exception as error:  # noqa: BLE001 - a port: granting goes on from memory
            if self._has_broken(error):
                self._replace_corrupt(error)
            else:
                self._salvage()
                self._failed(error)
        self._digest_key = self._digest_key or secrets.token_bytes(32)
        self._opened = True

    def load(self) -> StoredState:
        """The stored state, without expired leases. Raises StateTooNew."""
        self.open()
        if self._db is None:
            return self._salvaged
        try:
            state, expired = tables.read_state(self._db, self._moment())
        except Exception as error:  # noqa: BLE001 - a port: granting goes on from memory
            if self._has_broken(error):
                self._replace_corrupt(error)
            else:
                self._rescue_suspensions()
                self._failed(error)
            return self._with_rescued(StoredState())
        for lease_id in expired:
            self._leases.put(lease_id, None)
        return self._with_rescued(state)

    def _with_rescued(self, state: StoredState) -> StoredState:
        self._suspended = {**state.suspensions, **self._suspended}
        if self._suspensions:
            self.flush()
        return replace(state, suspensions=dict(self._suspended))

    def put_lease(self, lease_id: str, lease: Lease | None) -> None:
        """Stores the lease with the next flush. None deletes it."""
        if lease is None and self._fault and not self._on_disk(lease_id):
            # While nothing can be written, leases that ended must not accumulate in memory.
            self._leases.forget(lease_id)
        else:
            self._leases.put(lease_id, lease)

    def put_pin(self, key: tuple[str, str, str], pin: tuple[str, bool] | None) -> None:
        """Stores the pin with the next flush. None deletes it."""
        self._pins.put(key, pin)

    def put_order(self, key: tuple[str, str], order: tuple[str, ...] | None) -> None:
        """Stores the order with the next flush. None deletes it."""
        self._orders.put(key, order)

    def put_usage(self, key: tuple[str, str], usage: Usage | None) -> None:
        """Stores the usage with the next flush. None deletes it."""
        self._usage.put(key, usage)

    def put_version(self, key: tuple[str, str], version: StoredVersion | None) -> None:
        """Stores the version with the next flush. None deletes it."""
        self._versions.put(key, version)

    def put_suspension(self, agent: str, suspension: Suspension | None) -> None:
        """Stores the suspension with the next flush, and in a database that replaces a corrupt one. None deletes it."""
        if suspension is None:
            self._suspended.pop(agent, None)
        else:
            self._suspended[agent] = suspension
        self._suspensions.put(agent, suspension)

    def flush(self) -> None:
        """Writes all changes in one transaction, without waiting for the disk. Never raises: see `fault`."""
        if self._closed or (self._fault and self._clock.steady() < self._retry_at):
            return
        if self._fault or any(self._changes):
            self._flush()

    def _flush(self) -> None:
        try:
            self.open()
            db = self._db = self._db or self._connect()
            db.execute("BEGIN IMMEDIATE")
            moment = self._moment()
            for changes in self._changes:
                if changes:
                    changes.write(db, moment)
            if self._fault:
                # Only a write shows whether writing works again, even without changes.
                db.execute("INSERT OR REPLACE INTO meta VALUES ('recovered', ?)", (str(moment.wall),))
            db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - a port: granting goes on from memory
            self._failed(error)
            return
        for changes in self._changes:
            changes.clear()
        self._log_grew = True
        if self._fault:
            _log.info("the state can be written to %s again", self._path)
            self._fault = ""

    async def checkpoint(self) -> None:
        """Brings flushed changes safely to the disk (fsync), in a thread, and keeps the write-ahead log short.

        The broker calls it every few seconds. It does nothing if nothing was written. Never raises: see `fault`.
        """
        self.flush()
        if self._db is None or not self._log_grew:
            return
        self._log_grew = False
        try:
            await asyncio.to_thread(fold_log, self._path)
        except Exception as error:  # noqa: BLE001 - a port: it is tried again
            self._log_grew = True
            fault = f"cannot write {self._path} safely to disk: {self._explained(error)}"
            if fault != self._log_fault:
                _log.error("%s", fault)
            self._log_fault = fault
        else:
            self._log_fault = ""

    async def sync(self) -> str:
        """Writes all changes and waits for the disk (fsync), in a thread. Returns why that failed, or an empty text."""
        self._retry_at = 0.0
        self.flush()
        if self._fault or self._closed:
            return self._fault or f"{self._path} is closed"
        try:
            await asyncio.to_thread(sync_log, self._path)
        except Exception as error:  # noqa: BLE001 - a port
            said = error.strerror if isinstance(error, OSError) else self._explained(error)
            return f"cannot write {self._path} safely to disk: {said}"
        return ""

    def close(self) -> None:
        """Writes all changes and closes the file. Can be called again. Later changes are discarded."""
        self._retry_at = 0.0
        self.flush()
        self._closed = True
        if self._fault:
            _log.error("changes since the last successful write of the state are lost: %s", self._fault)
        if self._db is not None:
            self._db.close()
            self._db = None

    def _moment(self) -> tables.Moment:
        return tables.Moment(self._clock.now(), self._clock.steady(), self._boot)

    def _connect(self) -> sqlite3.Connection:
        db = open_database(self._path)
        try:
            self._ensure_digest_key(db)
        except BaseException:
            db.close()
            raise
        return db

    def _ensure_digest_key(self, db: sqlite3.Connection) -> None:
        stored = digest_key_of(db)
        self._digest_key = self._digest_key or stored or secrets.token_bytes(32)
        if stored != self._digest_key:
            db.execute("BEGIN IMMEDIATE")
            # Digests made with another key cannot be compared.
            db.execute("DELETE FROM versions")
            db.execute("INSERT OR REPLACE INTO meta VALUES ('digest_key', ?)", (self._digest_key,))
            db.execute("COMMIT")

    def _on_disk(self, lease_id: str) -> bool:
        if self._db is None:
            return any(lease.id == lease_id for lease in self._salvaged.leases)
        try:
            return self._db.execute("SELECT 1 FROM leases WHERE id = ?", (lease_id,)).fetchone() is not None
        except sqlite3.Error:
            return True

    def _salvage(self) -> None:
        try:
            with closing(open_for_reading(self._path)) as db:
                self._digest_key = digest_key_of(db)
                self._salvaged, _ = tables.read_state(db, self._moment())
                self._suspended = dict(self._salvaged.suspensions)
        except Exception as error:  # noqa: BLE001 - a port
            if os.path.exists(self._path) and os.path.getsize(self._path):  # noqa: PTH110, PTH202  (which do not raise first)
                why = self._explained(error)
                _log.error("leases and suspensions of an earlier run cannot be read from %s: %s", self._path, why)

    def _rescue_suspensions(self) -> None:
        """Reads the suspensions from a corrupt database: a suspension is a security measure and must not get lost."""
        try:
            with closing(open_for_reading(self._path)) as db:
                self._suspended = tables.read_suspensions(db, self._moment()) | self._suspended
        except Exception:  # noqa: BLE001 - a port
            if not self._suspended:
                _log.error(
                    "the suspended agents cannot be read from %s: find them in the audit log, and suspend them again",
                    self._path,
                )
        for agent, suspension in self._suspended.items():
            self._suspensions.put(agent, suspension)

    def _replace_corrupt(self, error: Exception) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self._rescue_suspensions()
        stamp = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            aside = move_aside(self._path, stamp=stamp)
            _log.error(
                "%s is corrupt (%s): it was moved to %s and created again; its leases end",
                self._path,
                explain(error),
                aside.name,
            )
            self._db = self._connect()
        except _WRONG as again:
            self._failed(again)

    def _failed(self, error: Exception) -> None:
        self._roll_back()
        if self._db is not None and is_broken(error):
            self._replace_corrupt(error)
        if not self._fault:
            self._retries = delays(base=_RETRY_FIRST, cap=_RETRY_CAP, rng=secrets.SystemRandom().random)
        self._retry_at = self._clock.steady() + next(self._retries)
        fault = f"cannot write {self._path}: {self._explained(error)}"
        if fault != self._fault:
            _log.error("%s (until then the state is kept in memory)", fault)
        self._fault = fault

    def _has_broken(self, error: Exception) -> bool:
        """Whether the file is corrupt, in contrast to a problem of its disk or permissions."""
        return isinstance(error, _WRONG) and is_broken(error, reading=True)

    def _explained(self, error: Exception) -> str:
        expected = isinstance(error, (*_WRONG, StateTooNew))
        return explain(error) if expected else str(incident("state", str(self._path), error))

    def _roll_back(self) -> None:
        try:
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            # The connection cannot be used any more; the next flush opens another.
            self._db, unusable = None, self._db
            if unusable is not None:
                unusable.close()
