"""The thread behind a Credential."""

import logging
import math
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from equabot_client import _convert, _fork, errors
from equabot_client._client import Channel, Stream
from equabot_client._clock import steady
from equabot_client._keeping import ABSENT_LESS, WAITED_OUT, Ending, Held, keep
from equabot_client._lease import Lease, LeaseEvent, LeaseRequest

_log: Final = logging.getLogger("equabot_client")
_SHORTEST_PAUSE: Final = 0.05
_LEAVES_WITHIN: Final = 2.0


class _Stopped(Exception):
    """The credential was closed."""


class Keeper:
    """The thread behind a Credential, and what it has in hand. The Line of `keep`, for threads.

    `held` is replaced as a whole and read without a lock; everything else is under `_news`. It does not know its Credential,
    so that one that is dropped can be collected while the thread lives.
    """

    def __init__(
        self,
        channel: Channel,
        request: LeaseRequest,
        *,
        timeout: float,
        on_rotate: Callable[[Lease], object] | None,
        on_end: Callable[[str], object] | None = None,
    ) -> None:
        self.patience = timeout / 2
        self._channel = channel
        self._request = request
        self._timeout = timeout
        self._on_rotate = on_rotate
        self._on_end = on_end
        self._begin()
        _fork.register(self)

    def _begin(self) -> None:
        self.held: Held | None = None
        self._ending = Ending(self._on_end)
        self._news = threading.Condition()
        self._needed = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._streams: tuple[Stream, ...] = ()
        self._overdue = math.inf
        self._silent = False
        self._unstreamed = ""
        self._last: Lease | None = None
        self._error: errors.EquabotError | None = None
        self._failures = 0

    # -- for those who use the credential ------------------------------------------------------------------------------

    def wait(self, timeout: float) -> Lease:
        """The lease in hand, waiting for one if need be."""
        self._check()
        deadline = steady() + timeout
        absent = deadline - timeout * ABSENT_LESS
        with self._news:
            self._start()
            if self.held is None or self.held.until <= steady():
                self._needed.set()
            failures = self._failures
            while True:
                now = steady()
                if self.held is not None and now < self.held.until:
                    self._hurry(now)
                    return self.held.lease
                self._check()
                error = self._error
                if error is not None and self._failures > failures and not isinstance(error, WAITED_OUT):
                    raise error.again()
                if now >= (absent if isinstance(error, errors.BrokerUnavailable) else deadline):
                    raise error.again() if error is not None else self._too_late(timeout)
                self._hurry(now)
                self._news.wait(min(deadline, self._overdue) - now)

    def wait_for_change(self, since: Lease, timeout: float) -> Lease:
        """Other material than that of `since`."""
        self._check()
        deadline = steady() + timeout
        with self._news:
            self._start()
            while True:
                self._check()
                now = steady()
                held = self.held
                if held is not None and now < held.until and not held.lease.same_material(since):
                    return held.lease
                if now >= deadline:
                    raise errors.DeadlineExceeded(f"nothing changed within {timeout:g} s")
                self._hurry(now)
                self._news.wait(min(min(deadline, self._overdue) - now, threading.TIMEOUT_MAX))

    def has_other(self, used: Lease, *, patience: float) -> bool:
        """Whether other material than `used` is in hand, or comes within so many seconds."""
        if patience:
            self._needed.set()
        try:
            self.wait_for_change(used, patience)
        except errors.DeadlineExceeded:
            return False
        return True

    def stop(self) -> None:
        """Ends the thread, from any thread, also from itself."""
        with self._news:
            self.held = None
            self._stopping.set()
            self._needed.set()
            self._news.notify_all()
            streams, thread = self._streams, self._thread
        for stream in streams:
            stream.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LEAVES_WITHIN)

    def before_fork(self) -> None:
        """Nothing to do: the channel wakes the thread that is inside gRPC."""

    def after_fork(self) -> list[Any]:
        """The thread is the parent's, and so are its lease, its token and perhaps the locks."""
        parents, closed = [self._streams, self._news], self._stopping.is_set()
        self._request = replace(self._request, holder=None)
        self._begin()
        if closed:
            self._stopping.set()
        return parents

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"equabot {self._request.provider}", daemon=True)
            self._thread.start()

    def _check(self) -> None:
        if self._stopping.is_set():
            raise errors.CredentialClosed("this credential was closed")

    def _hurry(self, now: float) -> None:
        """Gives up on a stream from which something should have come: the loop then tries anew."""
        if now >= self._overdue and self._streams:
            self._overdue, self._silent = math.inf, True
            self._streams[-1].cancel()

    def _too_late(self, timeout: float) -> errors.EquabotError:
        return errors.DeadlineExceeded(f"the broker at {self._channel.target} granted no lease within {timeout:g} s")

    # -- the thread, and the world as its loop sees it -------------------------------------------------------------------

    def _run(self) -> None:
        try:
            keep(self, rng=random.Random()).send(None)  # noqa: S311 - jitter
        except _Stopped:
            self._give_back()
        except Exception:  # noqa: BLE001 - a loop that dies silently would serve what is stale
            _log.exception("the loop that keeps %s fresh has died: a fault in equabot_client", self._request.provider)
            self.failed(errors.Unexpected("this credential is no longer kept fresh: a fault in equabot_client, see the log"))

    def now(self) -> float:
        return steady()

    async def open(self) -> None:
        with self._news:
            self._go_on()
            for stream in self._streams[:-1]:
                stream.cancel()
            self._streams = (*self._streams[-1:], self._channel.stream(self._request.after(self._last)))

    async def read(self, *, until: float) -> LeaseEvent | None:
        with self._news:
            self._overdue, self._silent = until, False
            self._news.notify_all()
        try:
            return self._ending.read(self._streams[-1].read())
        except errors.BrokerUnavailable:
            if not self._silent:
                raise
            raise errors.DeadlineExceeded("the broker's stream fell silent") from None
        finally:
            with self._news:
                self._overdue = math.inf
            self._go_on()

    async def acquire(self) -> Lease:
        self._go_on()
        lease = self._channel.ask(_convert.acquire(self._request.after(self._last)), timeout=self._timeout)
        self._unstreamed = lease.id
        return lease

    async def renew(self, lease_id: str) -> Lease:
        self._go_on()
        return self._channel.ask(_convert.renew(lease_id), timeout=self._timeout)

    async def pause(self, seconds: float) -> None:
        self._stopping.wait(min(seconds, _SHORTEST_PAUSE))
        self._needed.wait(max(seconds - _SHORTEST_PAUSE, 0.0))
        self._needed.clear()
        self._go_on()

    def hold(self, held: Held) -> None:
        before = self._last
        held = replace(held, lease=held.lease.going_on_from(before))
        self._last = held.lease
        with self._news:
            self._go_on()
            self.held, self._error = held, None
            self._news.notify_all()
        self._ending.held(held.lease, before)
        if self._on_rotate is not None and before is not None and not held.lease.same_material(before):
            try:
                self._on_rotate(held.lease)
            except Exception:  # noqa: BLE001 - somebody else's code: it must not end ours
                _log.exception("on_rotate of %s failed", held.lease.provider)

    def drop(self, reason: str) -> None:
        with self._news:
            self.held = None
        self._ending.ended(reason)

    def failed(self, error: errors.EquabotError) -> None:
        with self._news:
            self._error = error
            self._failures += 1
            self._news.notify_all()
        self._ending.failed(error, self._last)

    def _go_on(self) -> None:
        if self._stopping.is_set() or self._thread is not threading.current_thread():  # the latter after a fork in a callback
            raise _Stopped

    def _give_back(self) -> None:
        """A stream's lease ends with the stream; another has to be given back."""
        if self._unstreamed:
            try:
                self._channel.ask(_convert.revoke(self._unstreamed), timeout=min(self._timeout, 1.0))
            except errors.EquabotError as error:
                _log.debug("a lease was not given back and will expire: %s", error)
