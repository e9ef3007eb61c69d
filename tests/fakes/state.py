"""A store of state without a disk."""

from typing import Any

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.suspension import Suspension
from equabot_broker.ports import StoredState, StoredVersion


class MemoryStateStore:
    """Fulfils `ports.StateStore`. What was put and not flushed is lost by `crash`, as with a killed process; while
    `broken` says why, nothing is written and what was put is kept for later."""

    def __init__(self) -> None:
        self.digest_key = b"k" * 32
        self.broken = ""
        self.flushes = 0
        self._tables: dict[str, dict[Any, Any]] = {
            t: {} for t in ("leases", "pins", "orders", "usage", "versions", "suspensions")
        }
        self._pending: list[tuple[str, Any, Any]] = []
        self._fault = ""

    @property
    def fault(self) -> str:
        """Why the last flush wrote nothing."""
        return self._fault

    def load(self) -> StoredState:
        """What was flushed."""
        tables = {name: dict(table) for name, table in self._tables.items()}
        return StoredState(leases=tuple(tables.pop("leases").values()), **tables)

    def put_lease(self, lease_id: str, lease: Lease | None) -> None:
        self._pending.append(("leases", lease_id, lease))

    def put_pin(self, key: tuple[str, str, str], pin: tuple[str, bool] | None) -> None:
        self._pending.append(("pins", key, pin))

    def put_order(self, key: tuple[str, str], order: tuple[str, ...] | None) -> None:
        self._pending.append(("orders", key, order))

    def put_usage(self, key: tuple[str, str], usage: Usage | None) -> None:
        self._pending.append(("usage", key, usage))

    def put_version(self, key: tuple[str, str], version: StoredVersion | None) -> None:
        self._pending.append(("versions", key, version))

    def put_suspension(self, agent: str, suspension: Suspension | None) -> None:
        self._pending.append(("suspensions", agent, suspension))

    async def sync(self) -> str:
        """Flushes."""
        self.flush()
        return self._fault

    def flush(self) -> None:
        """Moves what was put to what `load` returns."""
        self._fault = self.broken
        if self.broken:
            return
        self.flushes += 1
        for table, key, value in self._pending:
            if value is None:
                self._tables[table].pop(key, None)
            else:
                self._tables[table][key] = value
        self._pending.clear()

    def crash(self) -> None:
        """Forgets what was not flushed."""
        self._pending.clear()

    def close(self) -> None:
        self.flush()
