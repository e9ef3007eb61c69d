"""Read-only access to the state of a broker that does not run. Nothing is created or written."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.suspension import Suspension
from equabot_broker.ports import Clock, StoredState, StoredVersion
from equabot_broker.storage import _state_tables as tables
from equabot_broker.storage._state_file import digest_key_of, open_for_reading
from equabot_broker.storage.state import boot_id


class ReadOnlyState:
    """Implements `ports.StateStore` for a command that only reads. Changes are discarded."""

    fault = ""

    def __init__(self, path: Path | None, *, clock: Clock) -> None:
        """`path` is None if a running broker has the state open: that broker answers instead, and `load` returns nothing."""
        self._path = path
        self._clock = clock
        self.digest_key = b""

    def load(self) -> StoredState:
        """The stored state. It is empty if there is no state, or if the state cannot be read."""
        if self._path is None or not os.path.isfile(self._path):  # noqa: PTH113  (does not raise for an unreadable directory)
            return StoredState()
        try:
            with closing(open_for_reading(self._path)) as db:
                self.digest_key = digest_key_of(db)
                state, _ = tables.read_state(db, tables.Moment(self._clock.now(), self._clock.steady(), boot_id()))
        except (sqlite3.Error, OSError, ValueError, TypeError):
            return StoredState()
        # The versions show whether a provider rejected the current material or an earlier one.
        return StoredState(
            pins=state.pins, orders=state.orders, usage=state.usage, versions=state.versions, suspensions=state.suspensions
        )

    def put_lease(self, lease_id: str, lease: Lease | None) -> None:
        """Discarded, like the other changes."""

    def put_pin(self, key: tuple[str, str, str], pin: tuple[str, bool] | None) -> None: ...

    def put_order(self, key: tuple[str, str], order: tuple[str, ...] | None) -> None: ...

    def put_usage(self, key: tuple[str, str], usage: Usage | None) -> None: ...

    def put_version(self, key: tuple[str, str], version: StoredVersion | None) -> None: ...

    def put_suspension(self, agent: str, suspension: Suspension | None) -> None: ...

    def flush(self) -> None: ...

    async def sync(self) -> str:
        """Does nothing."""
        return ""

    def close(self) -> None: ...
