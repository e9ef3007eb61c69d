"""A look at the state of a broker that does not run: read if it is there, never created, never written."""

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
    """Fulfils `ports.StateStore` for somebody who only wants to know. What is put goes nowhere."""

    fault = ""

    def __init__(self, path: Path | None, *, clock: Clock) -> None:
        """None: nothing is looked at, because a running broker has it open and answers for it."""
        self._path = path
        self._clock = clock
        self.digest_key = b""

    def load(self) -> StoredState:
        """What is stored; nothing where there is no state, or none that can be read."""
        if self._path is None or not os.path.isfile(self._path):  # noqa: PTH113  (which raises nothing for a closed directory)
            return StoredState()
        try:
            with closing(open_for_reading(self._path)) as db:
                self.digest_key = digest_key_of(db)
                state, _ = tables.read_state(db, tables.Moment(self._clock.now(), self._clock.steady(), boot_id()))
        except (sqlite3.Error, OSError, ValueError, TypeError):
            return StoredState()
        # Versions are needed to tell whether it is the present material that a provider has refused.
        return StoredState(
            pins=state.pins, orders=state.orders, usage=state.usage, versions=state.versions, suspensions=state.suspensions
        )

    def put_lease(self, lease_id: str, lease: Lease | None) -> None:
        """Goes nowhere, as do the other puts."""

    def put_pin(self, key: tuple[str, str, str], pin: tuple[str, bool] | None) -> None: ...

    def put_order(self, key: tuple[str, str], order: tuple[str, ...] | None) -> None: ...

    def put_usage(self, key: tuple[str, str], usage: Usage | None) -> None: ...

    def put_version(self, key: tuple[str, str], version: StoredVersion | None) -> None: ...

    def put_suspension(self, agent: str, suspension: Suspension | None) -> None: ...

    def flush(self) -> None: ...

    async def sync(self) -> str:
        """Nothing is kept."""
        return ""

    def close(self) -> None: ...
