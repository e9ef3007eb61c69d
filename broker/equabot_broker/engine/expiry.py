"""The loop that ends leases, credentials, cooldowns and the budgets of stale sources in time."""

import asyncio
from typing import Final

from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.timing.clock import pause
from equabot_broker.ports import Clock, StateStore
from equabot_broker.telemetry.broker_events import ClockJumped, StoreFaulted, StoreRecovered
from equabot_broker.telemetry.events import Events

_LONGEST: Final = 5.0
"""The longest wait of the loop in seconds. Each turn detects jumps of the wall clock, and stores the times of last use."""
_SHORTEST: Final = 0.02
"""The shortest wait of the loop in seconds: under load it works in batches. Callers do not depend on it: a lease or profile
that has ended counts as ended before the loop has run."""
_JUMP: Final = 2.0
"""A difference of the two clocks in seconds that counts as a jump."""


class Expiry:
    """Runs when something is due, and at least every five seconds."""

    def __init__(
        self, *, clock: Clock, store: StateStore, events: Events, registry: ProfileRegistry, lease_table: LeaseTable
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._registry = registry
        self._lease_table = lease_table
        self._offset = lease_table.offset()
        self._sooner = asyncio.Event()
        self._fault = ""

    def wake(self) -> None:
        """Ends the current wait, because something is due sooner."""
        self._sooner.set()

    async def run(self) -> None:
        """Runs the loop forever."""
        while True:
            delay = self.turn()
            self._sooner.clear()
            await pause(self._clock, min(max(delay, _SHORTEST), _LONGEST), sooner=self._sooner)

    def turn(self) -> float:
        """Handles what is due. Returns the seconds until the next deadline."""
        offset = self._lease_table.offset()
        if abs(offset - self._offset) > _JUMP:
            by, self._offset = offset - self._offset, offset
            self._events.emit(ClockJumped(seconds=by))
            self._registry.wall_moved(by)
            self._lease_table.wall_moved()
        credentials = self._registry.tick() - self._clock.now()
        leases = self._lease_table.tick() - self._clock.steady()
        self._registry.flush_used()
        self._store.flush()
        self._report_store()
        return max(min(credentials, leases), 0.0)

    def _report_store(self) -> None:
        fault = self._store.fault
        if fault and fault != self._fault:
            self._events.emit(StoreFaulted(fault=fault))
        elif self._fault and not fault:
            self._events.emit(StoreRecovered())
        self._fault = fault
