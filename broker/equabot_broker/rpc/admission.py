"""Limits the calls of one listener by kind, so that no kind can use the room of another.

A call begins as *unread*: its headers have arrived and its message has not. `Limits.unread` is the number of such calls. A new
call always gets a place: if all are in use, the oldest unread call ends. A complete call leaves its place in less than a
millisecond, so an old one waits for a message that does not come.

When the message has arrived, the call needs a place of its kind, and is refused without one. A probe needs no place: it
is answered at once.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, Protocol, TypeVar, cast

from equabot_broker.domain.connections import ConnectionTable
from equabot_broker.domain.errors import RateLimited
from equabot_broker.rpc.limits import Limits
from equabot_broker.rpc.status import MessageLate

T = TypeVar("T")

_MESSAGE_WITHIN: Final = 5.0
"""Seconds from a call's headers to its whole message."""
_LOOKED_AT_EVERY: Final = 1.0
_RETRY_AFTER: Final = 1.0


class PeerKind(Enum):
    """The kind of place that a call uses while it is answered."""

    PROBE = "probes"
    WATCH = "watches"
    CALL = "calls"
    LEASE = "lease streams"


class Peer(Protocol):
    """A call that knows its peer."""

    def peer(self) -> str:
        """The name of the call's connection in the transport."""


class _Unread:
    """A call whose message has not arrived."""

    __slots__ = ("ended", "late_at", "task")

    def __init__(self, task: "asyncio.Task[Any]", late_at: float) -> None:
        self.task = task
        self.late_at = late_at
        self.ended: Exception | None = None

    def end(self, why: Exception) -> None:
        self.ended = why
        self.task.cancel()


class Admission:
    """The calls of one listener. `address_of` maps a call's peer to an address; without it all calls have the same address."""

    def __init__(self, limits: Limits, *, address_of: Callable[[str], str] | None = None) -> None:
        peer = limits.peer
        self._address_of = address_of
        self._unread = ConnectionTable(most=limits.unread, most_per_peer=peer.unread if peer else limits.unread)
        self._places = {
            PeerKind.WATCH: _Places("watches", limits.watches, peer.watches if peer else limits.watches),
            PeerKind.CALL: _Places("calls", limits.calls, peer.calls if peer else limits.calls),
            PeerKind.LEASE: _Places("lease streams", limits.leases, limits.leases),
        }
        self._sweeping: asyncio.TimerHandle | None = None

    def allow(self, leases: int) -> None:
        """Sets the number of lease streams. Open streams do not end."""
        self._places[PeerKind.LEASE].allow(leases)

    async def unread(self, call: Peer, step: Callable[[], Awaitable[T]]) -> T:
        """The result of the step, which reads the call's message. Raises RateLimited for a call that had to make room for
        another, and MessageLate."""
        loop = asyncio.get_running_loop()
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        waiting = _Unread(task, loop.time() + _MESSAGE_WITHIN)
        ended = self._unread.add(waiting, self._peer(call))
        if isinstance(ended, _Unread):
            ended.end(RateLimited("too many calls wait for their message", retry_after=_RETRY_AFTER))
        if self._sweeping is None:
            self._sweeping = loop.call_later(_LOOKED_AT_EVERY, self._sweep)
        try:
            return await step()
        except asyncio.CancelledError:
            if waiting.ended is None:
                raise
            task.uncancel()
            raise waiting.ended from None
        finally:
            self._unread.remove(waiting)

    @contextmanager
    def answering(self, call: Peer, kind: PeerKind) -> Iterator[None]:
        """Holds a place of the kind while the call is answered. Raises RateLimited without one."""
        places = self._places.get(kind)
        if places is None:
            yield
            return
        peer = self._peer(call)
        places.take(peer)
        try:
            yield
        finally:
            places.give_back(peer)

    def _peer(self, call: Peer) -> str:
        return "" if self._address_of is None else self._address_of(call.peer())

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for waiting in self._unread:
            if isinstance(waiting, _Unread) and waiting.late_at <= now:
                waiting.end(MessageLate(f"the message of the call did not arrive within {_MESSAGE_WITHIN:g} s"))
        self._sweeping = loop.call_later(_LOOKED_AT_EVERY, self._sweep) if len(self._unread) else None


class _Places:
    def __init__(self, what: str, most: int, most_per_peer: int) -> None:
        self._what = what
        self._most = most
        self._most_per_peer = most_per_peer
        self._taken: Counter[str] = Counter()
        self._all = 0

    def allow(self, most: int) -> None:
        self._most = self._most_per_peer = most

    def take(self, peer: str) -> None:
        if self._all >= self._most or self._taken[peer] >= self._most_per_peer:
            raise RateLimited(f"too many {self._what} are open here: end some of them", retry_after=_RETRY_AFTER)
        self._taken[peer] += 1
        self._all += 1

    def give_back(self, peer: str) -> None:
        self._all -= 1
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]
