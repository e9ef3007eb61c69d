"""A credential that stays current: for event loops. The twin of `equabot_client.credential`."""

import math
import weakref
from collections.abc import Callable
from typing import Final, Self, Unpack

from equabot_client import _convert, errors
from equabot_client._client import AsyncChannel
from equabot_client._clock import steady
from equabot_client._lease import Answered, Lease, LeaseRequest, Outcome
from equabot_client._secret import Secret, SecretMap
from equabot_client.aio._keeper import Keeper

_CHANGE_ARRIVES: Final = 2.0


class AsyncCredential:
    """What `equabot_client.Credential` is, for the event loop in which it is first used.

    It runs as a task of that loop. `await credential.close()` gives the lease back; ending the loop does too.
    """

    def __init__(
        self,
        channel: AsyncChannel,
        request: LeaseRequest,
        *,
        timeout: float,
        on_rotate: Callable[[Lease], object] | None = None,
        on_end: Callable[[str], object] | None = None,
    ) -> None:
        self._request = request
        self._channel = channel
        self._timeout = timeout
        self._keeper = Keeper(channel, request, timeout=timeout, on_rotate=on_rotate, on_end=on_end)
        weakref.finalize(self, self._keeper.abandon).atexit = False

    async def lease(self) -> Lease:
        """The lease in hand, with all that the broker says of it."""
        held = self._keeper.held
        if held is not None and steady() < held.due:
            return held.lease
        return await self._keeper.wait(self._timeout)

    async def headers(self) -> SecretMap:
        """What a request must carry now."""
        return (await self.lease()).headers

    async def secret(self) -> Secret:
        """The secret now; for a `brokered` lease its token."""
        return (await self.lease()).secret

    async def env(self) -> SecretMap:
        """What a process started now must be given."""
        return (await self.lease()).env

    async def wait_for_change(self, *, since: Lease | None = None, timeout: float | None = None) -> Lease:
        """As `Credential.wait_for_change`."""
        return await self._keeper.wait_for_change(since or await self.lease(), math.inf if timeout is None else timeout)

    async def report(self, outcome: Outcome, *, lease: Lease | None = None, **answered: Unpack[Answered]) -> bool:
        """As `Credential.report`."""
        used = lease or await self.lease()
        ask = _convert.report(used, outcome, answered)
        try:
            changed = await self._channel.ask(ask, timeout=self._timeout)
        except (errors.LeaseNotFound, errors.LeaseExpired):
            changed = False
        return await self._keeper.has_other(used, patience=_CHANGE_ARRIVES if changed else 0.0)

    async def close(self) -> None:
        """Gives the lease back and ends the task. Idempotent."""
        await self._keeper.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        held = self._keeper.held
        what = "nothing in hand" if held is None else f"{held.lease.profile} until {held.lease.expires_at:%H:%M:%S}Z"
        return f"<{type(self).__name__} {self._request.profile or self._request.provider}: {what}>"
