"""Streams that hold leases: reading the stream renews the lease, changes are sent on it, and the lease ends with it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from equabot_broker.domain.errors import AuditUnavailable, BrokerError
from equabot_broker.domain.leases import Lease, renew, renewal_due
from equabot_broker.domain.material import HeldProfile
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.grants import LeaseGrants
from equabot_broker.engine.leases.mailboxes import LeaseChange, Mailbox
from equabot_broker.engine.leases.messages import Grant
from equabot_broker.engine.leases.table import LeaseTable, whose
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.ports import Clock
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.lease_events import LeaseRenewed, MaterialDelivered

_LONGER: Final = 0.001
"""A renewal is sent if it extends the lease by more than this time in seconds."""
_READ_END_WITHIN: Final = 5.0
_TRY_AGAIN_AFTER: Final = 1.0


class NoticeKind(StrEnum):
    """The kinds of events on a stream, named as in the API."""

    GRANTED = "GRANTED"
    ROTATED = "ROTATED"
    RENEWED = "RENEWED"
    EXPIRING = "EXPIRING"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Notice:
    """An event on a stream. `grant` is None if the lease has ended. The holder has `patience` seconds to read it."""

    kind: NoticeKind
    lease_id: str
    grant: Grant | None
    reason: str = ""
    patience: float = 0.0


class StreamLeases:
    """Operations of open streams on their leases."""

    def __init__(
        self,
        *,
        clock: Clock,
        events: Events,
        registry: ProfileRegistry,
        lease_table: LeaseTable,
        failover: Failover,
        grants: LeaseGrants,
    ) -> None:
        self._clock = clock
        self._events = events
        self._registry = registry
        self._lease_table = lease_table
        self._failover = failover
        self._grants = grants

    def open(self, granted: Grant) -> "LeaseStream":
        """A stream that holds the lease while it is entered."""
        self._failover.remind(granted.lease, granted.held)
        return LeaseStream(self, granted, self._lease_table.mailbox(granted.lease.id))

    def steady(self) -> float:
        """The current steady instant in seconds."""
        return self._clock.steady()

    def look(self, lease_id: str) -> Grant:
        """The current lease. Raises LeaseNotFound, LeaseExpired."""
        return self._grants.look(lease_id)

    def extend(self, lease_id: str) -> Grant:
        """The lease, renewed by the time first requested if that extends it.

        Raises LeaseNotFound, LeaseExpired, AuditUnavailable.
        """
        self._registry.tick()
        lease = self._lease_table.active(lease_id)
        held = self._failover.look(lease)
        renewed = renew(lease, ttl=None, credential_left=None, now=self._clock.steady())
        if renewed.expires_at <= lease.expires_at + _LONGER:
            return self._grants.of(lease, held)
        before, after = self._grants.of(lease, held), self._grants.of(renewed, held)
        longer = after.lease.expires_at > before.lease.expires_at + _LONGER
        if longer:
            self._record_renewal(lease, held)
        self._lease_table.replace(renewed)
        if longer:
            self._failover.remind(renewed, held)
        else:
            self._lease_table.remind(lease_id, renewal_due(renewed, credential_left=None, now=self._clock.steady()))
        return after

    def deliver(self, lease: Lease) -> None:
        """Records that the holder gets new material. Raises AuditUnavailable, and plans another attempt."""
        try:
            self._events.emit(MaterialDelivered(profile=lease.profile, **whose(lease)))
        except AuditUnavailable as unavailable:
            self._lease_table.remind(lease.id, self._clock.steady() + (unavailable.retry_after or _TRY_AGAIN_AFTER))
            raise

    def close(self, lease_id: str) -> None:
        """Ends the lease with its stream, unless it was detached from the stream."""
        lease = self._lease_table.get(lease_id)
        if lease is not None and lease.streaming:
            self._lease_table.end_stored([lease], "revoked")

    def _record_renewal(self, lease: Lease, held: HeldProfile) -> None:
        """Raises AuditUnavailable, and plans another attempt: the holder of a stream does not ask again."""
        try:
            self._events.emit(LeaseRenewed(profile=lease.profile, **whose(lease)))
        except AuditUnavailable:
            self._failover.remind(lease, held)
            raise


class LeaseStream:
    """One open stream. Leaving the `with` block always revokes its lease."""

    def __init__(self, stream_leases: StreamLeases, granted: Grant, mailbox: Mailbox) -> None:
        self._stream_leases = stream_leases
        self._granted = granted
        self._mailbox = mailbox
        self._warned = False
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream_leases.close(self._granted.lease.id)

    async def next(self) -> Notice:
        """The next event. REVOKED is the last one. Reading renews the lease: without a reader it expires."""
        if not self._begun:
            self._begun = True
            return self._notice(NoticeKind.GRANTED, self._granted)
        while True:
            notice = self._notice_of(await self._mailbox.take())
            if notice is not None:
                return notice

    def _notice_of(self, change: LeaseChange) -> Notice | None:
        lease_id = self._granted.lease.id
        if LeaseChange.ENDED in change:
            return Notice(NoticeKind.REVOKED, lease_id, None, self._mailbox.reason, patience=_READ_END_WITHIN)
        try:
            # This also finds a rotation that could not be recorded earlier.
            if (rotated := self._rotated()) is not None:
                self._mailbox.post(change & ~LeaseChange.ROTATED)
                return rotated
            notice = self._due() if LeaseChange.DUE in change else None
            if notice is not None or LeaseChange.MOVED not in change:
                return notice
            return self._notice(NoticeKind.RENEWED, self._stream_leases.look(lease_id))
        except BrokerError:
            return None  # the lease ended, and ENDED follows; or the event could not be recorded, and another attempt follows

    def _rotated(self) -> Notice | None:
        """The holder of a token is notified of another profile, but not of new material: its token stays the same."""
        before, now = self._granted, self._stream_leases.look(self._granted.lease.id)
        same = now.lease.profile == before.lease.profile and (now.lease.brokered or now.held.version == before.held.version)
        if same:
            return None
        if not now.lease.brokered:
            self._stream_leases.deliver(now.lease)
        return self._notice(NoticeKind.ROTATED, now)

    def _due(self) -> Notice | None:
        before, now = self._granted, self._stream_leases.extend(self._granted.lease.id)
        if now.lease.expires_at > before.lease.expires_at + _LONGER:
            return self._notice(NoticeKind.RENEWED, now)
        if self._warned:
            return None
        self._warned = True
        return self._notice(NoticeKind.EXPIRING, now, "credential" if now.lease.renewable() else "max_ttl")

    def _notice(self, kind: NoticeKind, granted: Grant, reason: str = "") -> Notice:
        if granted.lease.expires_at > self._granted.lease.expires_at + _LONGER:
            self._warned = False
        self._granted = granted
        patience = granted.lease.expires_at - self._stream_leases.steady()
        return Notice(kind, granted.lease.id, granted, reason, patience=max(patience, 0.0))
