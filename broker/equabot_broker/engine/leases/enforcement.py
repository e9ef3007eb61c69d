"""Applies changed terms to existing leases: a lease that is no longer granted ends, others may become shorter."""

from collections.abc import Iterable

from equabot_broker.domain.leases import Lease, shortened
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.mailboxes import LeaseChange
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.engine.leases.terms import LeaseTerms
from equabot_broker.ports import Clock, StateStore


class PolicyEnforcement:
    """Applies the terms when the broker starts and when the configuration changes."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        terms: LeaseTerms,
        suspensions: Suspensions,
        lease_table: LeaseTable,
        failover: Failover,
    ) -> None:
        self._clock = clock
        self._store = store
        self._terms = terms
        self._suspensions = suspensions
        self._lease_table = lease_table
        self._failover = failover

    def adopt(self, leases: Iterable[Lease]) -> None:
        """Adopts the leases of an earlier process if they are still granted."""
        for lease in leases:
            self._lease_table.adopt(lease)
            if self._suspensions.of(lease.agent) is not None:
                self._lease_table.end(lease.id, "agent_suspended")
            else:
                self._held_to_terms(lease)

    def apply(self, changed: frozenset[str]) -> int:
        """Applies other terms; the resolver already has the new configuration. Returns the number of ended leases.

        Streams of the `changed` providers get their lease again.
        """
        ended = 0
        for lease in self._lease_table.all():
            kept = self._held_to_terms(lease)
            ended += kept is None
            if kept is not None and kept.streaming and (kept is not lease or kept.provider in changed):
                if (home := self._failover.home(kept)) is not None:
                    self._failover.remind(kept, home.held)
                self._lease_table.mailbox(kept.id).post(LeaseChange.MOVED)
        self._store.flush()
        return ended

    def _held_to_terms(self, lease: Lease) -> Lease | None:
        """The lease as its agent's policy grants it now, or None if it ended."""
        if not self._terms.allows(lease):
            self._lease_table.end(lease.id, "policy")
            return None
        held = shortened(lease, self._terms.longest(lease.agent))
        if held.expires_at <= self._clock.steady():
            self._lease_table.end(lease.id, "max_ttl")
            return None
        if held is not lease:
            self._lease_table.replace(held)
        return held
