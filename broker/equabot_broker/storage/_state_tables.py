"""The tables of the state database: schema, migrations, and the conversion between values and rows."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from equabot_broker.domain.cooldowns import ModelCooldown, Usage
from equabot_broker.domain.ends import FirstSeen
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.suspension import Suspension
from equabot_broker.ports import StoredState, StoredVersion

K = TypeVar("K")
V = TypeVar("V")
Row = tuple[Any, ...]

APPLICATION_ID: Final = 0x45515542
"""`EQUB`: identifies a database of the broker."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        """CREATE TABLE leases (
            id TEXT PRIMARY KEY, agent TEXT NOT NULL, session TEXT NOT NULL, provider TEXT NOT NULL, profile TEXT NOT NULL,
            automatic INTEGER NOT NULL, delivery TEXT NOT NULL, asked REAL NOT NULL, issued_at REAL NOT NULL,
            expires_at REAL NOT NULL, max_expires_at REAL NOT NULL, expires_wall REAL NOT NULL, boot TEXT NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE pins (
            agent TEXT, session TEXT, provider TEXT, profile TEXT NOT NULL, strict INTEGER NOT NULL,
            PRIMARY KEY (agent, session, provider)
        ) WITHOUT ROWID""",
        """CREATE TABLE orders (
            agent TEXT, provider TEXT, profiles TEXT NOT NULL, PRIMARY KEY (agent, provider)
        ) WITHOUT ROWID""",
        """CREATE TABLE usage (
            agent TEXT, profile TEXT, last_used REAL NOT NULL, cooldown_until REAL NOT NULL, disabled_until REAL NOT NULL,
            disabled_reason TEXT NOT NULL, error_count INTEGER NOT NULL, failure_counts TEXT NOT NULL,
            last_failure REAL NOT NULL, rejected TEXT NOT NULL, rejected_version INTEGER NOT NULL,
            PRIMARY KEY (agent, profile)
        ) WITHOUT ROWID""",
        """CREATE TABLE versions (
            agent TEXT, profile TEXT, version INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (agent, profile)
        ) WITHOUT ROWID""",
    ),
    # The SHA-256 of a lease's token, empty for a raw lease.
    ("ALTER TABLE leases ADD COLUMN token BLOB NOT NULL DEFAULT x''",),
    # `tokens` is a concatenation of SHA-256 digests.
    (
        """CREATE TABLE suspensions (
            agent TEXT PRIMARY KEY, since REAL NOT NULL, reason TEXT NOT NULL, tokens BLOB NOT NULL
        ) WITHOUT ROWID""",
    ),
    # When a rejected credential is tried again, and how often it was rejected. Older rejections are tried again soon.
    (
        "ALTER TABLE usage ADD COLUMN rejected_until REAL NOT NULL DEFAULT 0",
        "ALTER TABLE usage ADD COLUMN rejections INTEGER NOT NULL DEFAULT 0",
        "UPDATE usage SET rejected_until = last_failure + 60, rejections = 1 WHERE rejected != ''",
    ),
    # The places of a profile, oldest first: a list of [source, unit].
    ("ALTER TABLE versions ADD COLUMN places TEXT NOT NULL DEFAULT '[]'",),
    # `models`: model → [end of the cooldown, failures in a row, last failure]. `version`: the material that was used.
    (
        "ALTER TABLE usage ADD COLUMN models TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE usage ADD COLUMN version INTEGER NOT NULL DEFAULT 0",
        "UPDATE usage SET version = rejected_version WHERE rejected != ''",
        "ALTER TABLE leases ADD COLUMN model TEXT NOT NULL DEFAULT ''",
    ),
    # The declared end of a profile, and a digest of the value with which that end was first seen.
    ("ALTER TABLE versions ADD COLUMN end_at REAL", "ALTER TABLE versions ADD COLUMN end_digest BLOB"),
)
"""Step number n, counted from one, leads to schema version n. New steps go to the end; a released step never changes."""
_TOKENS_SINCE: Final = 2
_SUSPENSIONS_SINCE: Final = 3
_TRIALS_SINCE: Final = 4
_PLACES_SINCE: Final = 5
_MODELS_SINCE: Final = 6
_ENDS_SINCE: Final = 7
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on both clocks. The steady clock belongs to the boot `boot`; an empty one equals no other."""

    wall: float
    steady: float
    boot: str


@dataclass(frozen=True, slots=True)
class Table(Generic[K, V]):
    """How one kind of state is stored. A row begins with its key."""

    upsert: str
    delete: str
    select: str
    key_row: Callable[[K], Row]
    value_row: Callable[[V, Moment], Row]
    read: Callable[[Row, Moment], tuple[K, V]]


def _table(
    name: str,
    columns: str,
    *,
    key: str,
    key_row: Callable[[K], Row],
    value_row: Callable[[V, Moment], Row],
    read: Callable[[Row, Moment], tuple[K, V]],
) -> Table[K, V]:
    marks = ", ".join("?" * len(columns.split(",")))
    where = " AND ".join(f"{column.strip()} = ?" for column in key.split(","))
    # All arguments are constants of this module: no input becomes SQL.
    return Table(
        upsert=f"INSERT OR REPLACE INTO {name} ({columns}) VALUES ({marks})",  # noqa: S608
        delete=f"DELETE FROM {name} WHERE {where}",  # noqa: S608
        select=f"SELECT {columns} FROM {name}",  # noqa: S608
        key_row=key_row,
        value_row=value_row,
        read=read,
    )


def _lease_row(lease: Lease, moment: Moment) -> Row:
    return (
        lease.agent, lease.session, lease.provider, lease.profile, lease.automatic, lease.delivery.value, lease.asked,
        lease.issued_at, lease.expires_at, lease.max_expires_at, moment.wall + lease.expires_at - moment.steady, moment.boot,
        lease.token, lease.model,
    )  # fmt: skip


def _read_lease(row: Row, moment: Moment) -> tuple[str, Lease]:
    lease_id, agent, session, provider, profile, automatic, delivery, asked, issued, expires, max_expires, *rest = row
    wall, boot, token, model = rest
    shift = 0.0
    if not boot or boot != moment.boot:
        # A wall clock that was set back must not extend a lease beyond its duration.
        left = min(wall - moment.wall, expires - issued)
        shift = moment.steady + left - expires
    return lease_id, Lease(
        lease_id, agent, session, provider, profile, bool(automatic), Delivery(delivery), asked,
        issued + shift, expires + shift, max_expires + shift, token=bytes(token), model=model,
    )  # fmt: skip


def _usage_row(usage: Usage, _: Moment) -> Row:
    return (
        usage.last_used, usage.cooldown_until, usage.disabled_until, usage.disabled_reason, usage.error_count,
        json.dumps(dict(usage.failure_counts)) if usage.failure_counts else "{}",
        usage.last_failure, usage.rejected, usage.rejected_version, usage.rejected_until, usage.rejections,
        json.dumps({name: astuple(cooling) for name, cooling in usage.models.items()}) if usage.models else "{}",
        usage.version,
    )  # fmt: skip


def _read_usage(row: Row, _: Moment) -> tuple[tuple[str, str], Usage]:
    agent, profile, last_used, cooldown, disabled, why, errors, counts, last_failure, rejected, version, *rest = row
    until, times, models, of = rest
    return (agent, profile), Usage(
        last_used=last_used,
        cooldown_until=cooldown,
        disabled_until=disabled,
        disabled_reason=why,
        error_count=errors,
        failure_counts=MappingProxyType({str(name): int(count) for name, count in json.loads(counts).items()}),
        last_failure=last_failure,
        rejected=rejected,
        rejected_version=version,
        rejected_until=until,
        rejections=times,
        models=MappingProxyType({str(name): _read_model(*met) for name, met in json.loads(models).items()}),
        version=of,
    )


def _read_model(until: float, errors: int, last_failure: float) -> ModelCooldown:
    return ModelCooldown(float(until), int(errors), float(last_failure))


def _read_suspension(since: float, reason: str, tokens: bytes) -> Suspension:
    digests = tuple(bytes(tokens[at : at + _DIGEST]) for at in range(0, len(tokens), _DIGEST))
    return Suspension(since=float(since), reason=str(reason), tokens=digests)


def _read_version(row: Row) -> StoredVersion:
    places = tuple((str(source), str(unit)) for source, unit in json.loads(row[4]))
    seen = None if row[5] is None else FirstSeen(float(row[5]), bytes(row[6]))
    return StoredVersion(version=row[2], digest=bytes(row[3]), places=places, seen=seen)


def _version_row(stored: StoredVersion, _: Moment) -> Row:
    end = (None, None) if stored.seen is None else (stored.seen.at, stored.seen.digest)
    return (stored.version, stored.digest, json.dumps(stored.places), *end)


LEASES: Final[Table[str, Lease]] = _table(
    "leases",
    "id, agent, session, provider, profile, automatic, delivery, asked, issued_at, expires_at, max_expires_at, "
    "expires_wall, boot, token, model",
    key="id",
    key_row=lambda key: (key,),
    value_row=_lease_row,
    read=_read_lease,
)
_LEASES_WITHOUT_MODELS: Final = replace(LEASES, select=LEASES.select.replace(", model ", ", '' "))
"""For an older database that cannot be migrated because it is read-only."""
_LEASES_WITHOUT_TOKENS: Final = replace(LEASES, select=LEASES.select.replace(", token, model ", ", x'', '' "))
PINS: Final[Table[tuple[str, str, str], tuple[str, bool]]] = _table(
    "pins",
    "agent, session, provider, profile, strict",
    key="agent, session, provider",
    key_row=lambda key: key,
    value_row=lambda pin, _: pin,
    read=lambda row, _: ((row[0], row[1], row[2]), (row[3], bool(row[4]))),
)
ORDERS: Final[Table[tuple[str, str], tuple[str, ...]]] = _table(
    "orders",
    "agent, provider, profiles",
    key="agent, provider",
    key_row=lambda key: key,
    value_row=lambda order, _: (json.dumps(order),),
    read=lambda row, _: ((row[0], row[1]), tuple(str(profile) for profile in json.loads(row[2]))),
)
USAGE: Final[Table[tuple[str, str], Usage]] = _table(
    "usage",
    "agent, profile, last_used, cooldown_until, disabled_until, disabled_reason, error_count, failure_counts, last_failure, "
    "rejected, rejected_version, rejected_until, rejections, models, version",
    key="agent, profile",
    key_row=lambda key: key,
    value_row=_usage_row,
    read=_read_usage,
)
_USAGE_WITHOUT_MODELS: Final = replace(USAGE, select=USAGE.select.replace(", models, version ", ", '{}', rejected_version "))
_USAGE_WITHOUT_TRIALS: Final = replace(
    USAGE,
    select=_USAGE_WITHOUT_MODELS.select.replace(
        ", rejected_until, rejections,", ", iif(rejected != '', last_failure + 60, 0), rejected != '',"
    ),
)
VERSIONS: Final[Table[tuple[str, str], StoredVersion]] = _table(
    "versions",
    "agent, profile, version, digest, places, end_at, end_digest",
    key="agent, profile",
    key_row=lambda key: key,
    value_row=_version_row,
    read=lambda row, _: ((row[0], row[1]), _read_version(row)),
)
_VERSIONS_WITHOUT_ENDS: Final = replace(VERSIONS, select=VERSIONS.select.replace(", end_at, end_digest ", ", NULL, NULL "))
_VERSIONS_WITHOUT_PLACES: Final = replace(
    _VERSIONS_WITHOUT_ENDS, select=_VERSIONS_WITHOUT_ENDS.select.replace(", places,", ", '[]',")
)
SUSPENSIONS: Final[Table[str, Suspension]] = _table(
    "suspensions",
    "agent, since, reason, tokens",
    key="agent",
    key_row=lambda key: (key,),
    value_row=lambda suspension, _: (suspension.since, suspension.reason, b"".join(suspension.tokens)),
    read=lambda row, _: (str(row[0]), _read_suspension(*row[1:])),
)


class RowChanges(Generic[K, V]):
    """Changes to one table that are not written yet. The newest change of a key wins; None deletes the row."""

    __slots__ = ("_put", "_table")

    def __init__(self, table: Table[K, V]) -> None:
        self._table = table
        self._put: dict[K, V | None] = {}

    def __len__(self) -> int:
        return len(self._put)

    def put(self, key: K, value: V | None) -> None:
        """Adds a change."""
        self._put[key] = value

    def forget(self, key: K) -> None:
        """Drops the change of the key."""
        self._put.pop(key, None)

    def clear(self) -> None:
        """Drops all changes."""
        self._put.clear()

    def write(self, db: sqlite3.Connection, moment: Moment) -> None:
        """Writes all changes inside the caller's transaction."""
        table, gone, kept = self._table, [], []
        for key, value in self._put.items():
            if value is None:
                gone.append(table.key_row(key))
            else:
                kept.append(table.key_row(key) + table.value_row(value, moment))
        if gone:
            db.executemany(table.delete, gone)
        if kept:
            db.executemany(table.upsert, kept)


def read_state(db: sqlite3.Connection, moment: Moment) -> tuple[StoredState, list[str]]:
    """The stored state with its active leases, oldest first, and the ids of expired leases.

    Raises sqlite3.Error, and ValueError or TypeError for invalid rows.
    """
    version = _version(db)
    leases_table = _as_of(version, (_TOKENS_SINCE, _LEASES_WITHOUT_TOKENS), (_MODELS_SINCE, _LEASES_WITHOUT_MODELS)) or LEASES
    usage_table = _as_of(version, (_TRIALS_SINCE, _USAGE_WITHOUT_TRIALS), (_MODELS_SINCE, _USAGE_WITHOUT_MODELS)) or USAGE
    places, ends = (_PLACES_SINCE, _VERSIONS_WITHOUT_PLACES), (_ENDS_SINCE, _VERSIONS_WITHOUT_ENDS)
    versions_table = _as_of(version, places, ends) or VERSIONS
    rows = _rows(db, leases_table, moment)
    leases = sorted((lease for _, lease in rows), key=lambda lease: lease.issued_at)
    return StoredState(
        leases=tuple(lease for lease in leases if lease.expires_at > moment.steady),
        pins=dict(_rows(db, PINS, moment)),
        orders=dict(_rows(db, ORDERS, moment)),
        usage=dict(_rows(db, usage_table, moment)),
        versions=dict(_rows(db, versions_table, moment)),
        suspensions=read_suspensions(db, moment),
    ), [lease.id for lease in leases if lease.expires_at <= moment.steady]


def read_suspensions(db: sqlite3.Connection, moment: Moment) -> dict[str, Suspension]:
    """The suspended agents. The other tables may be corrupt. Raises like `read_state`."""
    return {} if _version(db) < _SUSPENSIONS_SINCE else dict(_rows(db, SUSPENSIONS, moment))


def _as_of(version: int, *older: tuple[int, Table[K, V]]) -> Table[K, V] | None:
    """The table for a database of this version: the first of `older` that changed in a later version, or None."""
    return next((table for changed, table in older if version < changed), None)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _rows(db: sqlite3.Connection, table: Table[K, V], moment: Moment) -> list[tuple[K, V]]:
    return [table.read(row, moment) for row in db.execute(table.select)]
