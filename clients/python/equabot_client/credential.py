"""A credential that stays current: for threads. `equabot_client.aio` has its twin for event loops."""

import math
import weakref
from collections.abc import Callable
from typing import Final, Self, Unpack

from equabot_client import _convert, errors
from equabot_client._client import Channel
from equabot_client._clock import steady
from equabot_client._keeper import Keeper
from equabot_client._lease import Answered, Lease, LeaseRequest, Outcome
from equabot_client._secret import Secret, SecretMap

_CHANGE_ARRIVES: Final = 2.0
"""Seconds within which the broker's push follows its word that something has changed."""


class Credential:
    """What an agent holds on to for as long as it lives. Any thread may use it; it is never stale and never blocks while
    there is something in hand.

    The first use opens a lease, in a thread of its own, and waits for it. From then on the broker pushes what changes.
    While the broker is away, what was in hand is served until its lease ends. Then, and when a first lease cannot be had,
    each use waits up to the broker's timeout and raises the EquabotError that says why.

    After `os.fork()` the child's first use opens a lease of its own, whatever the parent had in hand: `on_rotate` and `on_end`
    are then called in the child for its lease alone, and a `holder` stays the parent's.
    `close()` gives the lease back. It is also called when the credential is garbage, and at the interpreter's exit.
    """

    def __init__(
        self,
        channel: Channel,
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
        self._finalizer = weakref.finalize(self, self._keeper.stop)

    def lease(self) -> Lease:
        """The lease in hand, with all that the broker says of it."""
        held = self._keeper.held
        if held is not None and steady() < held.due:
            return held.lease
        return self._keeper.wait(self._timeout)

    def headers(self) -> SecretMap:
        """What a request must carry now."""
        held = self._keeper.held
        if held is not None and steady() < held.due:
            return held.lease.headers
        return self._keeper.wait(self._timeout).headers

    def secret(self) -> Secret:
        """The secret now; for a `brokered` lease its token."""
        return self.lease().secret

    def env(self) -> SecretMap:
        """What a process started now must be given."""
        return self.lease().env

    def wait_for_change(self, *, since: Lease | None = None, timeout: float | None = None) -> Lease:
        """Waits until a request would carry something else than with `since` (default: the lease in hand), and returns that
        lease. Raises DeadlineExceeded after so many seconds; None waits for as long as it takes."""
        return self._keeper.wait_for_change(since or self.lease(), math.inf if timeout is None else timeout)

    def report(self, outcome: Outcome, *, lease: Lease | None = None, **answered: Unpack[Answered]) -> bool:
        """Tells the broker how the provider answered a request made with `lease` (default: the one in hand).

        True: there is other material in hand now, so that trying again makes sense. `answered` says more of the answer. News of
        material that is no longer served changes nothing.
        """
        used = lease or self.lease()
        ask = _convert.report(used, outcome, answered)
        try:
            changed = self._channel.ask(ask, timeout=self._timeout)
        except (errors.LeaseNotFound, errors.LeaseExpired):
            changed = False  # that lease is over; another may be in hand already
        return self._keeper.has_other(used, patience=_CHANGE_ARRIVES if changed else 0.0)

    def close(self) -> None:
        """Gives the lease back and ends the thread. Idempotent, from any thread."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        held = self._keeper.held
        what = "nothing in hand" if held is None else f"{held.lease.profile} until {held.lease.expires_at:%H:%M:%S}Z"
        return f"<{type(self).__name__} {self._request.profile or self._request.provider}: {what}>"
