"""A broker, for event loops."""

import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Self, Unpack

from equabot_client import _convert, errors
from equabot_client._client import AsyncChannel
from equabot_client._lease import Answered, Lease, LeaseEvent, LeaseRequest, Outcome, Profile, Wanted
from equabot_client._security import Files, Security
from equabot_client.aio.credential import AsyncCredential

_log: Final = logging.getLogger("equabot_client")


def connect(
    address: str | None = None, *, agent: str = "main", timeout: float = 10.0, **security: Unpack[Security]
) -> "AsyncBroker":
    """A broker, which is spoken to when it is first asked something.

    `address`: `unix:/path/broker.sock` or a path, or `host:port` of a broker in another pod; default `EQUABOT_BROKER_ADDRESS`,
    else the socket of `agent` in the run directory. `timeout`: seconds that every call may take, and every wait for a lease.
    `security` is for `host:port` alone, where the caller's token or certificate says which agent it is, and not `agent`.
    Raises ValueError for what cannot be an address.
    """
    return AsyncBroker(AsyncChannel(address, agent=agent, files=Files.of(security, os.environ)), timeout=timeout)


class AsyncBroker:
    """The broker's API, for one event loop. Every method raises EquabotError, by reason, and answers within the timeout.

    Where a lease is asked for by `provider`, a profile id (`anthropic:work`) will do too, and means that profile alone. What
    else may be asked for (profile, session, model, ttl, delivery) says `Wanted`.
    """

    def __init__(self, channel: AsyncChannel, *, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._credentials: weakref.WeakSet[AsyncCredential] = weakref.WeakSet()

    @property
    def address(self) -> str:
        """Where the broker is."""
        return self._channel.target

    def credential(
        self,
        provider: str,
        *,
        on_rotate: Callable[[Lease], object] | None = None,
        on_end: Callable[[str], object] | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncCredential:
        """A credential that stays current. Nothing happens before its first use.

        `on_rotate` is called with the new lease, in the event loop, whenever what a request carries changes.
        `on_end` is called with a reason, likewise, when what a process was given at its start is over: its lease was taken
        away, or its token does not go on.
        """
        request = LeaseRequest(provider=provider, **wanted)
        credential = AsyncCredential(self._channel, request, timeout=self._timeout, on_rotate=on_rotate, on_end=on_end)
        self._credentials.add(credential)
        return credential

    @asynccontextmanager
    async def lease(self, provider: str, **wanted: Unpack[Wanted]) -> AsyncIterator[Lease]:
        """A lease for an `async with` block, given back at its end. It is not renewed: for longer work, `credential`."""
        lease = await self.acquire(provider, **wanted)
        try:
            yield lease
        finally:
            try:
                await self.revoke(lease)
            except errors.EquabotError as error:
                _log.debug("a lease was not given back and will expire: %s", error)

    async def acquire(self, provider: str, **wanted: Unpack[Wanted]) -> Lease:
        """Resolves which profile serves and grants a lease on it."""
        request = LeaseRequest(provider=provider, **wanted)
        return await self._channel.ask(_convert.acquire(request), timeout=self._timeout)

    async def stream(self, provider: str, **wanted: Unpack[Wanted]) -> AsyncIterator[LeaseEvent]:
        """A lease that lives as long as the iterator, and what happens to it, to the event that says that it has ended.
        The first event has to come within the timeout; the others take as long as they take. Most want `credential`."""
        stream = await self._channel.stream(LeaseRequest(provider=provider, **wanted))
        try:
            event = await stream.read(timeout=self._timeout)
            while event is not None:
                yield event
                event = await stream.read()
        finally:
            stream.cancel()

    async def renew(self, lease: Lease | str, *, ttl: timedelta | None = None) -> Lease:
        """The lease, or that of an id, with a longer life and the newest material."""
        renewed = await self._channel.ask(_convert.renew(_id(lease), ttl), timeout=self._timeout)
        return renewed if isinstance(lease, str) else renewed.going_on_from(lease)

    async def revoke(self, lease: Lease | str) -> bool:
        """Ends a lease, and returns whether it lived. Idempotent."""
        return await self._channel.ask(_convert.revoke(_id(lease)), timeout=self._timeout)

    async def report(self, lease: Lease, outcome: Outcome, **answered: Unpack[Answered]) -> bool:
        """Reports how the provider answered a request made with the lease. True: `renew` would now bring other material."""
        ask = _convert.report(lease, outcome, answered)
        return await self._channel.ask(ask, timeout=self._timeout)

    async def list_profiles(
        self,
        provider: str | None = None,
        *,
        session: str | None = None,
        client: str | None = None,
        model: str | None = None,
    ) -> tuple[Profile, ...]:
        """This agent's candidates in the order they would be tried for the program `client` and the model, without their
        secrets."""
        ask = _convert.list_profiles(provider, session, client=client, model=model)
        return await self._channel.ask(ask, timeout=self._timeout)

    async def pin(self, session: str, provider: str, *, profile: str, strict: bool = False) -> None:
        """Makes a session try one profile first. `strict`: and, while it is in cooldown, no other."""
        await self._channel.ask(_convert.pin(session, provider, profile, strict=strict), timeout=self._timeout)

    async def unpin(self, session: str, provider: str) -> None:
        """Takes a session's pin away. Idempotent."""
        await self._channel.ask(_convert.unpin(session, provider), timeout=self._timeout)

    async def close(self) -> None:
        """Closes every credential of this broker, and the connection. Idempotent."""
        for credential in list(self._credentials):
            await credential.close()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.address}>"


def _id(lease: Lease | str) -> str:
    return lease if isinstance(lease, str) else lease.id
