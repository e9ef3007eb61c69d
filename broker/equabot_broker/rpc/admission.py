"""Counts the calls of one listener, so that none of them can take the room of the others.

A call is first *unread*: its headers are here and its message is not. There are `Limits.unread` places for that, and a new call
always gets one: with all places taken the oldest unread call ends. A call that is complete leaves its place in less than a
millisecond, so whatever is old there is not coming. Once its message is here a call takes a place of its kind, and is refused
where there is none. A probe needs none: it is answered at once.
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
    """What a call holds a place for while it is answered."""

    PROBE = "probes"
    WATCH = "watches"
    CALL = "calls"
    LEASE = "lease streams"


class Peer(Protocol):
    """A call that says where it comes from."""

    def peer(self) -> str:
        """Its connection, as the transport names it."""


class _Unread:
    """A call whose message has not come."""

    __slots__ = ("ended", "late_at", "task")

    def __init__(self, task: "asyncio.Task[Any]", late_at: float) -> None:
        self.task = task
        self.late_at = late_at
        self.ended: Exception | None = None

    def end(self, why: Exception) -> None:
        self.ended = why
        self.task.cancel()


class Admission:
    """The calls of one listener. `address_of` says which peer a call comes from; without it all are of one."""

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
        """So many streams of leases from now on. None that is open ends."""
        self._places[PeerKind.LEASE].allow(leases)

    async def unread(self, call: Peer, step: Callable[[], Awaitable[T]]) -> T:
        """What the step returns, which reads the call's message. Raises RateLimited for a call that had to make room, and
        MessageLate."""
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
        """While a call of the kind is answered. Raises RateLimited where there is no place for it."""
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
                waiting.end(MessageLate(f"the call's message did not come within {_MESSAGE_WITHIN:g} s"))
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
            raise RateLimited(f"there are too many {self._what} here: end some of them", retry_after=_RETRY_AFTER)
        self._taken[peer] += 1
        self._all += 1

    def give_back(self, peer: str) -> None:
        self._all -= 1
        self._taken[peer] -= 1
        if not self._taken[peer]:
            del self._taken[peer]
