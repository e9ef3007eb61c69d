"""The active leases in memory and in the store, with their deadlines and the mailboxes of their streams."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from equabot_broker.domain.errors import LeaseExpired, LeaseNotFound, ShuttingDown
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.engine.leases.mailboxes import LeaseChange, Mailbox
from equabot_broker.engine.timing.deadlines import Deadlines
from equabot_broker.ports import Clock, StateStore
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.lease_events import LeaseMoved, LeaseRevoked


class LeaseTable:
    """Leases by id. The caller flushes the store after a change.

    `endings` get each ended lease and the reason, in the same turn of the loop. A lease is due at its end, and a stream at an
    earlier instant that its caller sets. The lease of a stream ends with its connection, so that it is not stored. A brokered
    lease is stored even with a stream, because a process may still use its token: it outlives its stream until its own end, or
    until another lease takes the token over.
    """

    def __init__(self, *, clock: Clock, store: StateStore, events: Events) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._leases: dict[str, Lease] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._streams_on: dict[str, dict[str, None]] = {}
        self._held_by: Counter[str] = Counter()
        self._by_token: dict[bytes, str] = {}
        self._tokens: dict[str, SecretValue] = {}
        self._by_holder: dict[tuple[str, str, str], str] = {}
        self.deadlines: Deadlines[str] = Deadlines()
        self.endings: list[Callable[[Lease, str], None]] = []
        self._is_open = True

    def get(self, lease_id: str) -> Lease | None:
        """The lease, or None if it has ended."""
        return self._leases.get(lease_id)

    def active(self, lease_id: str) -> Lease:
        """The lease. Raises LeaseNotFound, LeaseExpired."""
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFound("the lease has ended")
        return self.unexpired(lease)

    def unexpired(self, lease: Lease) -> Lease:
        """The same lease. If its time is over, ends it and raises LeaseExpired."""
        if lease.expires_at <= self._clock.steady():
            self.end_stored([lease], "expired" if lease.renewable() else "max_ttl")
            raise LeaseExpired("the lease has expired: acquire another")
        return lease

    def by_token(self, digest: bytes) -> Lease | None:
        """The active lease whose token has this digest, or None."""
        lease_id = self._by_token.get(digest)
        return None if lease_id is None else self._leases[lease_id]

    def held_as(self, holder: tuple[str, str, str]) -> Lease | None:
        """The active lease of a holder (agent, provider, name) whose token this process knows, or None."""
        lease_id = self._by_holder.get(holder)
        return None if lease_id is None else self._leases.get(lease_id)

    def token(self, lease_id: str) -> SecretValue | None:
        """The lease's token if this process made it, otherwise None."""
        return self._tokens.get(lease_id)

    def all(self) -> Iterator[Lease]:
        """All leases, oldest first. The table may change during the iteration."""
        return iter(list(self._leases.values()))

    def held_by(self, agent: str) -> int:
        """The number of the agent's leases."""
        return self._held_by[agent]

    def count(self) -> tuple[int, int]:
        """The number of leases, and the number of streams among them."""
        return len(self._leases), len(self._mailboxes)

    def streams(self, profile: str) -> list[Lease]:
        """The leases of streams on the profile."""
        return [self._leases[lease_id] for lease_id in self._streams_on.get(profile, ())]

    def keep(self, lease: Lease, token: SecretValue | None = None) -> None:
        """Adds a new lease. If it took over a token, that token now belongs to this lease."""
        self.adopt(lease)
        if token is not None:
            self._tokens[lease.id] = token
            if lease.holder:
                self._by_holder[_holder(lease)] = lease.id
        self._put(lease)

    def adopt(self, lease: Lease) -> None:
        """Adds a lease that is already stored."""
        self._held_by[lease.agent] += 1
        if lease.streaming:
            self._mailboxes[lease.id] = Mailbox()
        self._enter(lease)

    def replace(self, lease: Lease) -> None:
        """Replaces a lease with another end or profile. Raises AuditUnavailable; nothing has changed then."""
        before = self._leases[lease.id]
        if before.profile != lease.profile:
            self._events.emit(LeaseMoved(before=before.profile, profile=lease.profile, **whose(lease)))
        self._leave(before)
        self._enter(lease)
        self._put(lease)

    def remind(self, lease_id: str, at: float) -> None:
        """Makes the stream due at this steady instant, unless it is due sooner."""
        if at < self.deadlines.at(lease_id):
            self.deadlines.plan(lease_id, at)

    def mailbox(self, lease_id: str) -> Mailbox:
        """The mailbox of the stream. Raises KeyError."""
        return self._mailboxes[lease_id]

    def end(self, lease_id: str, reason: str) -> None:
        """Ends the lease. `reason` is a reason of the API. A lease that has already ended is not an error."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        self._leave(lease)
        self.deadlines.forget(lease_id)
        self._held_by[lease.agent] -= 1
        self._tokens.pop(lease_id, None)
        if self._by_holder.get(_holder(lease)) == lease_id:
            del self._by_holder[_holder(lease)]
        if self._by_token.get(lease.token) == lease_id:
            del self._by_token[lease.token]
        if lease.streaming:
            self._mailboxes.pop(lease_id).post(LeaseChange.ENDED, reason)
        if _is_stored(lease):
            self._store.put_lease(lease_id, None)
        self._events.emit(LeaseRevoked(profile=lease.profile, reason=reason, **whose(lease)))
        for listener in self.endings:
            listener(lease, reason)

    def end_stored(self, leases: Iterable[Lease], reason: str) -> None:
        """Ends each lease, and flushes the store."""
        for lease in leases:
            self.end(lease.id, reason)
        self._store.flush()

    def close(self) -> None:
        """Refuses new leases from now on: the broker is shutting down."""
        self._is_open = False

    def check_open(self) -> None:
        """Raises ShuttingDown after `close`."""
        if not self._is_open:
            raise ShuttingDown("the broker is shutting down: try again in a moment")

    def detach(self, lease_id: str, reason: str) -> None:
        """Ends the stream of the lease. The lease stays active."""
        lease = self._leases[lease_id]
        self._leave(lease)
        self._mailboxes.pop(lease_id).post(LeaseChange.ENDED, reason)
        self._enter(replace(lease, streaming=False))
        self._put(self._leases[lease_id])

    def offset(self) -> float:
        """The difference between wall-clock time and steady time, in seconds."""
        return self._clock.now() - self._clock.steady()

    def tick(self) -> float:
        """Ends expired leases, and wakes streams that are due. Returns the steady instant of the next call."""
        now = self._clock.steady()
        for lease_id in self.deadlines.due(now):
            lease = self._leases[lease_id]
            if lease.expires_at <= now:
                self.end(lease_id, "expired" if lease.renewable() else "max_ttl")
                continue
            self.deadlines.plan(lease_id, lease.expires_at)
            self._mailboxes[lease_id].post(LeaseChange.DUE)
        return self.deadlines.next()

    def wall_moved(self) -> None:
        """The wall clock jumped: leases keep their remaining time. Stores them with their new ends, and notifies streams."""
        for lease in self._leases.values():
            self._put(lease)
        for mailbox in self._mailboxes.values():
            mailbox.post(LeaseChange.MOVED)

    def _put(self, lease: Lease) -> None:
        if _is_stored(lease):
            self._store.put_lease(lease.id, lease)

    def _enter(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        if lease.token:
            self._by_token[lease.token] = lease.id
        self.deadlines.plan(lease.id, lease.expires_at)
        if lease.streaming:
            self._streams_on.setdefault(lease.profile, {})[lease.id] = None

    def _leave(self, lease: Lease) -> None:
        if not lease.streaming:
            return
        on_profile = self._streams_on[lease.profile]
        del on_profile[lease.id]
        if not on_profile:
            del self._streams_on[lease.profile]


def _is_stored(lease: Lease) -> bool:
    return bool(lease.token) or not lease.streaming


def _holder(lease: Lease) -> tuple[str, str, str]:
    return lease.agent, lease.provider, lease.holder


def whose(lease: Lease) -> dict[str, str]:
    """The fields of every event about a lease, without the profile."""
    return {"agent": lease.agent, "provider": lease.provider, "session": lease.session, "lease": lease.id}
