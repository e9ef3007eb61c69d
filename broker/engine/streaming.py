"""A stream is a lease: it is renewed while it is read, told what changes, and ends with the connection."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from broker.domain.errors import BrokerError
from broker.engine.grants import Grant
from broker.engine.notifying import Mailbox, News


class NoticeKind(StrEnum):
    """What an event on a stream says. Names as on the wire."""

    GRANTED = "GRANTED"
    ROTATED = "ROTATED"
    RENEWED = "RENEWED"
    EXPIRING = "EXPIRING"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class Notice:
    """An event on a stream. `grant` is absent when the lease has ended. `patience` is how many seconds the holder has to read
    it: until the lease it tells of is over."""

    kind: NoticeKind
    lease_id: str
    grant: Grant | None
    reason: str = ""
    patience: float = 0.0


class Leases(Protocol):
    """What an open stream asks of those who keep the leases."""

    def look(self, lease_id: str) -> Grant:
        """The lease as it is now. Raises LeaseNotFound."""

    def extend(self, lease_id: str) -> Grant:
        """The lease, renewed for as long as first asked. Raises LeaseNotFound, LeaseExpired."""

    def revoke(self, agent: str, lease_id: str) -> None:
        """Ends the lease."""

    def steady(self) -> float:
        """Now, as leases count it."""


class LeaseStream:
    """One open stream. Leaving the `with` block revokes its lease, for whatever reason it is left."""

    def __init__(self, leasing: Leases, granted: Grant, mailbox: Mailbox) -> None:
        self._leasing = leasing
        self._granted = granted
        self._mailbox = mailbox
        self._warned = False
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._leasing.revoke(self._granted.lease.agent, self._granted.lease.id)

    async def next(self) -> Notice:
        """The next event. After one of kind REVOKED there is none. Asking for it is what keeps the lease alive: a holder that
        does not read is not renewed."""
        if not self._begun:
            self._begun = True
            return self._notice(NoticeKind.GRANTED, self._granted)
        while True:
            notice = self._heed(await self._mailbox.take())
            if notice is not None:
                return notice

    def _heed(self, news: News) -> Notice | None:
        lease_id = self._granted.lease.id
        if News.ENDED in news:
            return Notice(NoticeKind.REVOKED, lease_id, None, self._mailbox.reason, patience=5.0)
        try:
            if News.ROTATED in news:
                if News.DUE in news:
                    self._mailbox.post(News.DUE)
                return self._looked(NoticeKind.ROTATED)
            return self._due() if News.DUE in news else self._looked(NoticeKind.RENEWED)
        except BrokerError:
            return None  # it ended meanwhile: the mailbox says so next

    def _looked(self, kind: NoticeKind) -> Notice | None:
        before, now = self._granted, self._leasing.look(self._granted.lease.id)
        self._granted = now
        same = (before.held.version, before.lease.profile) == (now.held.version, now.lease.profile)
        return None if kind == NoticeKind.ROTATED and same else self._notice(kind, now)

    def _due(self) -> Notice | None:
        before = self._granted
        self._granted = now = self._leasing.extend(before.lease.id)
        if now.lease.expires_at > before.lease.expires_at + 0.001:
            self._warned = False
            return self._notice(NoticeKind.RENEWED, now)
        if self._warned:
            return None
        self._warned = True
        return self._notice(NoticeKind.EXPIRING, now, "credential" if now.lease.renewable() else "max_ttl")

    def _notice(self, kind: NoticeKind, granted: Grant, reason: str = "") -> Notice:
        patience = granted.lease.expires_at - self._leasing.steady()
        return Notice(kind, granted.lease.id, granted, reason, patience=max(patience, 0.0))
