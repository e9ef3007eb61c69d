"""The task behind an AsyncCredential."""

import asyncio
import logging
import math
import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from equabot_client import _convert, errors
from equabot_client._client import AsyncChannel, AsyncStream
from equabot_client._clock import steady
from equabot_client._keeping import ABSENT_LESS, WAITED_OUT, Ending, Held, keep
from equabot_client._lease import Lease, LeaseEvent, LeaseRequest

_log: Final = logging.getLogger("equabot_client")
_SHORTEST_PAUSE: Final = 0.05


class Keeper:
    """The task behind an AsyncCredential, and what it has in hand. The Line of `keep`, for event loops."""

    def __init__(
        self,
        channel: AsyncChannel,
        request: LeaseRequest,
        *,
        timeout: float,
        on_rotate: Callable[[Lease], object] | None,
        on_end: Callable[[str], object] | None = None,
    ) -> None:
        self.held: Held | None = None
        self.patience = timeout / 2
        self._channel = channel
        self._request = request
        self._timeout = timeout
        self._on_rotate = on_rotate
        self._ending = Ending(on_end)
        self._news = asyncio.Event()
        self._needed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._closed = False
        self._streams: tuple[AsyncStream, ...] = ()
        self._unstreamed = ""
        self._last: Lease | None = None
        self._error: errors.EquabotError | None = None
        self._failures = 0

    # -- for those who use the credential ------------------------------------------------------------------------------

    async def wait(self, timeout: float) -> Lease:
        """The lease in hand, waiting for one if need be."""
        self._start()
        deadline, failures = steady() + timeout, self._failures
        absent = deadline - timeout * ABSENT_LESS
        if self.held is None or self.held.until <= steady():
            self._needed.set()
        while True:
            self._check()
            now = steady()
            if self.held is not None and now < self.held.until:
                return self.held.lease
            error = self._error
            if error is not None and self._failures > failures and not isinstance(error, WAITED_OUT):
                raise error.again()
            if now >= (absent if isinstance(error, errors.BrokerUnavailable) else deadline):
                raise error.again() if error is not None else self._too_late(timeout)
            await self._next_news(deadline - now)

    async def wait_for_change(self, since: Lease, timeout: float) -> Lease:
        """Other material than that of `since`."""
        self._start()
        deadline = steady() + timeout
        while True:
            self._check()
            now, held = steady(), self.held
            if held is not None and now < held.until and not held.lease.same_material(since):
                return held.lease
            if now >= deadline:
                raise errors.DeadlineExceeded(f"nothing changed within {timeout:g} s")
            await self._next_news(deadline - now)

    async def has_other(self, used: Lease, *, patience: float) -> bool:
        """Whether other material than `used` is in hand, or comes within so many seconds."""
        if patience:
            self._needed.set()
        try:
            await self.wait_for_change(used, patience)
        except errors.DeadlineExceeded:
            return False
        return True

    async def stop(self) -> None:
        """Ends the task, and tells those who wait."""
        self._closed, self.held = True, None
        self._tell()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])

    def abandon(self) -> None:
        """Nobody can use it any more."""
        loop, task = self._loop, self._task
        if loop is not None and task is not None and not loop.is_closed() and self._pid == os.getpid():
            loop.call_soon_threadsafe(task.cancel)

    def _start(self) -> None:
        self._check()
        if self._task is None:
            self._pid, self._loop = os.getpid(), asyncio.get_running_loop()
            self._task = self._loop.create_task(self._run(), name=f"equabot {self._request.provider}")

    def _check(self) -> None:
        if self._closed:
            raise errors.CredentialClosed("this credential was closed")
        if self._task is None:
            return
        if self._pid != os.getpid():
            raise errors.Forked("this credential was opened before os.fork(), by the parent's event loop: open one here")
        if self._loop is not asyncio.get_running_loop():
            raise errors.CredentialClosed("this credential belongs to another event loop: open one in this loop")

    async def _next_news(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _too_late(self, timeout: float) -> errors.EquabotError:
        return errors.DeadlineExceeded(f"the broker at {self._channel.target} granted no lease within {timeout:g} s")

    # -- the task, and the world as its loop sees it ---------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await keep(self, rng=random.Random())  # noqa: S311 - jitter
        except asyncio.CancelledError:
            self.held = None
            await self._give_back()
            raise
        except Exception:  # noqa: BLE001 - a loop that dies silently would serve what is stale
            _log.exception("the loop that keeps %s fresh has died: a fault in equabot_client", self._request.provider)
            self.failed(errors.Unexpected("this credential is no longer kept fresh: a fault in equabot_client, see the log"))

    def now(self) -> float:
        return steady()

    async def open(self) -> None:
        for stream in self._streams[:-1]:
            stream.cancel()
        self._streams = (*self._streams[-1:], await self._channel.stream(self._request.after(self._last)))

    async def read(self, *, until: float) -> LeaseEvent | None:
        return self._ending.read(await self._streams[-1].read(timeout=max(until - steady(), 0.0)))

    async def acquire(self) -> Lease:
        lease = await self._channel.ask(_convert.acquire(self._request.after(self._last)), timeout=self._timeout)
        self._unstreamed = lease.id
        return lease

    async def renew(self, lease_id: str) -> Lease:
        return await self._channel.ask(_convert.renew(lease_id), timeout=self._timeout)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, _SHORTEST_PAUSE))
        try:
            async with asyncio.timeout(max(seconds - _SHORTEST_PAUSE, 0.0)):
                await self._needed.wait()
        except TimeoutError:
            pass
        self._needed.clear()

    def hold(self, held: Held) -> None:
        before = self._last
        held = replace(held, lease=held.lease.going_on_from(before))
        self._last = held.lease
        self.held, self._error = held, None
        self._tell()
        self._ending.held(held.lease, before)
        if self._on_rotate is not None and before is not None and not held.lease.same_material(before):
            try:
                self._on_rotate(held.lease)
            except Exception:  # noqa: BLE001 - somebody else's code: it must not end ours
                _log.exception("on_rotate of %s failed", held.lease.provider)

    def drop(self, reason: str) -> None:
        self.held = None
        self._ending.ended(reason)

    def failed(self, error: errors.EquabotError) -> None:
        self._error = error
        self._failures += 1
        self._tell()
        self._ending.failed(error, self._last)

    async def _give_back(self) -> None:
        """A stream's lease ends with the stream; another has to be given back."""
        for stream in self._streams:
            stream.cancel()
        if self._unstreamed:
            try:
                await self._channel.ask(_convert.revoke(self._unstreamed), timeout=min(self._timeout, 1.0))
            except errors.EquabotError as error:
                _log.debug("a lease was not given back and will expire: %s", error)
