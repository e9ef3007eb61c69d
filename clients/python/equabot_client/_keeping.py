"""How a credential is kept fresh: written once, for threads and for event loops.

`keep` is the loop behind every long-lived credential and the one owner of its retries. What it does to the world goes
through a `Line`. A Line for threads has methods that block and never suspend, so that a thread runs `keep` with one
`send(None)`; a Line for an event loop awaits. The loop itself knows no clock, no lock and no socket.

    round after round:   stream ──GRANTED, ROTATED, RENEWED… ──EXPIRING or REVOKED──▸ next round, at once
                           │ what answers cannot stream
                           ▾
                         acquire ──renew at two thirds of what is left… ──▸ next round

A round that fails is followed by a jittered pause. What was in hand is served on until its lease ends.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from equabot_client import errors
from equabot_client._lease import EventKind, Lease, LeaseEvent

_log: Final = logging.getLogger("equabot_client")

WAITED_OUT: Final = (
    errors.BrokerUnavailable,
    errors.DeadlineExceeded,
    errors.ShuttingDown,
    errors.SourceNotSynced,
    errors.RateLimited,
)
"""What somebody who waits for a first lease waits out, within their deadline. Anything else they are told at once."""

ABSENT_LESS: Final = 0.7
"""The part of the timeout that is not waited where no broker answers at all: one that starts is there sooner."""

_SERVED_ON: Final = frozenset({"shutting_down", "max_ttl", "expired"})
"""Ends of a lease after which its material may be used until it expires. After others it may not."""

_OVERDUE: Final = 0.9
"""The part of a streamed lease's life after which the broker's renewal is missed: it comes at two thirds."""

_SETTLED: Final = 5.0
"""A round that lasted so many seconds, or half of its lease's life, was no failure."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease in hand. Instants are on the local steady clock, whatever the wall clocks here and there say.

    `since` when it was granted, `due` by when a renewal should have come, `until` its end.
    """

    lease: Lease
    since: float
    due: float
    until: float


class Line(Protocol):
    """What the loop does to the world. Every method raises EquabotError where it can fail."""

    patience: float
    """Seconds to wait for a stream's first event."""

    def now(self) -> float:
        """Steady seconds."""

    async def open(self) -> None:
        """Begins another stream. The one before it stays open, unread, until the next call."""

    async def read(self, *, until: float) -> LeaseEvent | None:
        """The next event of the stream opened last, None at its end. Raises DeadlineExceeded, and cancels the stream, when
        there is none by then: at once in an event loop, in a thread as soon as somebody asks for the credential."""

    async def acquire(self) -> Lease: ...

    async def renew(self, lease_id: str) -> Lease: ...

    async def pause(self, seconds: float) -> None:
        """Returns after so many seconds, or soon after somebody needs what is not there."""

    def hold(self, held: Held) -> None:
        """From now on this is served."""

    def drop(self, reason: str) -> None:
        """From now on nothing is served: the lease was taken away, for a reason in the broker's word."""

    def failed(self, error: errors.EquabotError) -> None:
        """What those who wait may be told."""


class Pace:
    """Pauses between rounds: none at first, then doubling, with jitter, until a round has settled."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._rounds = 0

    def settled(self) -> None:
        self._rounds = 0

    def pause(self, error: errors.EquabotError | None) -> float:
        """Seconds to wait after a round that ended well (None) or by an error."""
        count, self._rounds = self._rounds, min(self._rounds + 1, 16)
        away = error is None or isinstance(error, errors.BrokerUnavailable)
        if away and count == 0:
            return 0.0
        soon = away or isinstance(error, (errors.ShuttingDown, errors.SourceNotSynced))
        pause: float = min(0.4 if soon else 5.0, 0.05 * 2**count) * self._rng.uniform(0.5, 1.0)
        asked = error.retry_after if error is not None and error.retry_after else 0.0
        return max(pause, min(asked, 60.0))


class Ending:
    """Notices the end of what a process was given at its start, and reports it once. A raw lease ends when the broker takes it
    away. A token ends with its lease as well, unless the next lease goes on with it.

    `report` is called with the reason: the broker's word (`revoked`, `agent_suspended`, …), `expired`, or the reason of the
    error for which there is no next lease; BROKER_UNAVAILABLE where the broker was away until the lease was over.
    """

    def __init__(self, report: Callable[[str], object] | None) -> None:
        self._report = report
        self._reported = self._away = False

    def held(self, lease: Lease, before: Lease | None) -> None:
        """There is a lease in hand, after another."""
        if before is not None and before.delivery == "brokered" and lease.secret != before.secret:
            self.ended(errors.BrokerUnavailable.reason if self._away else "expired")
        self._reported = self._away = False

    def failed(self, error: errors.EquabotError, before: Lease | None) -> None:
        """There is no next lease yet, or for good."""
        self._away = self._away or isinstance(error, errors.BrokerUnavailable)
        if before is not None and not error.retryable:
            self.ended(error.reason)

    def read(self, event: LeaseEvent | None) -> LeaseEvent | None:
        """An event of the stream. One that ends without a word was cut off, as when the broker is killed."""
        self._away = self._away or event is None
        return event

    def ended(self, reason: str) -> None:
        """What is in hand is over."""
        if self._report is None or self._reported:
            return
        self._reported = True
        try:
            self._report(reason)
        except Exception:  # noqa: BLE001 - somebody else's code: it must not end ours
            _log.exception("on_end failed")


async def keep(line: Line, *, rng: random.Random) -> NoReturn:
    """Keeps a lease in hand, forever: ends only by what the Line's methods raise beside EquabotError."""
    pace = Pace(rng)
    streams, stopgap = True, False
    while True:
        failure: errors.EquabotError | None = None
        streaming = streams and not stopgap
        stopgap = False
        try:
            if streaming:
                await _stream(line, pace)
            else:
                await _renewals(line, pace, rng=rng, lasting=not streams)
        except errors.EquabotError as error:
            if streaming and isinstance(error, errors.Unsupported):
                streams = False
                continue
            # Silence, or words that are no broker's: something between here and the broker cannot pass a stream now.
            stopgap = streaming and isinstance(error, (errors.DeadlineExceeded, errors.Unexpected))
            failure = error
            line.failed(error)
        if pause := pace.pause(failure):
            await line.pause(pause)


async def _stream(line: Line, pace: Pace) -> None:
    """One stream. Returns when another should be opened."""
    await line.open()
    held: Held | None = None
    try:
        while True:
            event = await line.read(until=held.due if held else line.now() + line.patience)
            if event is None:
                return
            if event.kind is EventKind.REVOKED:
                if event.reason not in _SERVED_ON:
                    line.drop(event.reason)
                return
            ending = event.kind is EventKind.EXPIRING
            if event.lease is not None:
                held = _hold(line, event.lease, before=held, renewals=not ending)
            # The next one opens while this one lives. One that begins near its end has to be lived out, or streams
            # would follow each other as fast as they open.
            if ending and held is not None and _has_settled(held, line.now()):
                return
    finally:
        if held is not None and _has_settled(held, line.now()):
            pace.settled()


async def _renewals(line: Line, pace: Pace, *, rng: random.Random, lasting: bool) -> None:
    """One lease without a stream. Where it is not for lasting, it is a stopgap until the next try to stream."""
    held = _hold(line, await line.acquire(), before=None, renewals=False)
    try:
        while True:
            await line.pause((held.until - line.now()) * rng.uniform(0.6, 0.7))
            if not (lasting and held.lease.renewable) or line.now() >= held.until:
                return
            try:
                held = _hold(line, await line.renew(held.lease.id), before=held, renewals=False)
            except (errors.LeaseNotFound, errors.LeaseExpired) as over:
                line.drop("revoked" if isinstance(over, errors.LeaseNotFound) else "expired")
                return
            except errors.EquabotError as error:
                line.failed(error)
    finally:
        if _has_settled(held, line.now()):
            pace.settled()


def _hold(line: Line, lease: Lease, *, before: Held | None, renewals: bool) -> Held:
    """The broker's own two instants are compared with each other, never with the clock here."""
    now = line.now()
    since = before.since if before is not None and before.lease.id == lease.id else now
    until = since + (lease.expires_at - lease.issued_at).total_seconds()
    held = Held(lease, since, now + (until - now) * _OVERDUE if renewals else until, until)
    line.hold(held)
    return held


def _has_settled(held: Held, now: float) -> bool:
    return now - held.since >= min(_SETTLED, (held.until - held.since) / 2)
