"""The living leases: in memory, in the store, with their deadlines and the mailboxes of their streams."""

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
    """Leases by id. What is put here is stored with the next `flush` of the store, which is the caller's to call.

    `endings` are notified of each lease that has ended, and why, in the same turn of the loop.
    Everyone is due at the end of the lease; a stream before that, when its caller says.
    A lease that a stream holds ends with its connection: a restart has nothing to remember of it, so it is not stored. But a
    token is in the environment of a process that knows nothing of streams: its lease is stored, and lives on without its stream
    until it ends or another succeeds it.
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
        """The lease, if it has not ended."""
        return self._leases.get(lease_id)

    def living(self, lease_id: str) -> Lease:
        """The lease. Raises LeaseNotFound, LeaseExpired."""
        lease = self._leases.get(lease_id)
        if lease is None:
            raise LeaseNotFound("the lease has ended")
        return self.alive(lease)

    def alive(self, lease: Lease) -> Lease:
        """The same lease. Raises LeaseExpired where its time is over, having ended it."""
        if lease.expires_at <= self._clock.steady():
            self.end_stored([lease], "expired" if lease.renewable() else "max_ttl")
            raise LeaseExpired("the lease has expired: acquire another")
        return lease

    def by_token(self, digest: bytes) -> Lease | None:
        """The lease whose token has this digest, if it has not ended."""
        lease_id = self._by_token.get(digest)
        return None if lease_id is None else self._leases[lease_id]

    def held_as(self, holder: tuple[str, str, str]) -> Lease | None:
        """The lease of a named holder (agent, provider, name), if it has not ended and this process knows its token."""
        lease_id = self._by_holder.get(holder)
        return None if lease_id is None else self._leases.get(lease_id)

    def token(self, lease_id: str) -> SecretValue | None:
        """The lease's token itself, where this process has made it."""
        return self._tokens.get(lease_id)

    def all(self) -> Iterator[Lease]:
        """Every lease, oldest first. Leases may end and come while the caller iterates."""
        return iter(list(self._leases.values()))

    def held_by(self, agent: str) -> int:
        """How many leases the agent has."""
        return self._held_by[agent]

    def count(self) -> tuple[int, int]:
        """How many leases there are, and how many of them are streams."""
        return len(self._leases), len(self._mailboxes)

    def streams(self, profile: str) -> list[Lease]:
        """The leases on the profile that are held by streams."""
        return [self._leases[lease_id] for lease_id in self._streams_on.get(profile, ())]

    def keep(self, lease: Lease, token: SecretValue | None = None) -> None:
        """A new lease. Whose token it has taken over, if it has, can be found by that no more."""
        self.adopt(lease)
        if token is not None:
            self._tokens[lease.id] = token
            if lease.holder:
                self._by_holder[_holder(lease)] = lease.id
        self._put(lease)

    def adopt(self, lease: Lease) -> None:
        """A lease that is stored already."""
        self._held_by[lease.agent] += 1
        if lease.streaming:
            self._mailboxes[lease.id] = Mailbox()
        self._enter(lease)

    def replace(self, lease: Lease) -> None:
        """The lease has changed: it lives longer, or is on another profile. Raises AuditUnavailable, having changed nothing."""
        before = self._leases[lease.id]
        if before.profile != lease.profile:
            self._events.emit(LeaseMoved(before=before.profile, profile=lease.profile, **whose(lease)))
        self._leave(before)
        self._enter(lease)
        self._put(lease)

    def remind(self, lease_id: str, at: float) -> None:
        """The stream is due at this steady instant, if that is sooner than what is planned."""
        if at < self.deadlines.at(lease_id):
            self.deadlines.plan(lease_id, at)

    def mailbox(self, lease_id: str) -> Mailbox:
        """Where a stream finds what happens to its lease. Raises KeyError."""
        return self._mailboxes[lease_id]

    def end(self, lease_id: str, reason: str) -> None:
        """The lease is over: why, in a word of the wire. One that has ended already is no error."""
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
        """As `end` for each of them, and stored when this returns."""
        for lease in leases:
            self.end(lease.id, reason)
        self._store.flush()

    def close(self) -> None:
        """From now on no lease is granted: the broker is shutting down."""
        self._is_open = False

    def check_open(self) -> None:
        """Raises ShuttingDown after `close`."""
        if not self._is_open:
            raise ShuttingDown("the broker is shutting down: try again in a moment")

    def detach(self, lease_id: str, reason: str) -> None:
        """Ends the stream that holds the lease, as `end` does; the lease lives on without it."""
        lease = self._leases[lease_id]
        self._leave(lease)
        self._mailboxes.pop(lease_id).post(LeaseChange.ENDED, reason)
        self._enter(replace(lease, streaming=False))
        self._put(self._leases[lease_id])

    def offset(self) -> float:
        """What to add to a lease's steady instants to get wall-clock ones."""
        return self._clock.now() - self._clock.steady()

    def tick(self) -> float:
        """Ends what is over and wakes the streams that are due. Returns the next steady instant at which to call it again."""
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
        """The wall clock jumped: leases last as long as before, but end at other instants. Notifies the streams, and stores the
        leases."""
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
    """The fields that every event on a lease has, but for its profile."""
    return {"agent": lease.agent, "provider": lease.provider, "session": lease.session, "lease": lease.id}
