"""Workload identities: profiles whose secret a vendor returned for an identity token. No file holds these secrets.

The engine decides when to exchange a token. The token's file is read for each exchange, so the newest token of the kubelet is
sent.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final

from equabot_broker.domain.material import SourceEvent, SourceFault, Unit, UnitsListed
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Exchange, Mode
from equabot_broker.files.reading import Unreadable, read_some
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, Tokens
from equabot_broker.oauth.workload import (
    SIZE_MAX,
    SOURCE,
    Identity,
    Unfit,
    Workload,
    exchange_request,
    read_exchange,
    read_identity,
)
from equabot_broker.ports import Clock, TokenEndpoint

_UNTRIED: Final = "its identity token was not exchanged yet; a running broker exchanges it"
_LOOK_AGAIN: Final = 15.0
"""Seconds until a file that could not be used is read again. An operator may be correcting it."""


class _NoToken(Exception):
    """Why there is no identity token to exchange."""


class Workloads:
    """The source `workload`. It has one unit per workload, named after its profile.

    A profile exists from the start. It has no secret until its first exchange, and keeps the last secret if a later exchange
    fails.
    """

    name = SOURCE

    def __init__(
        self,
        workloads: Iterable[Workload],
        *,
        catalog: Catalog,
        clock: Clock,
        endpoint: TokenEndpoint,
        before: "Workloads | None" = None,
    ) -> None:
        """`before` is the source of an earlier configuration. Its tokens for the same identities are kept."""
        self._workloads = {workload.profile: workload for workload in workloads}
        self.made_of = {
            name: (workload, catalog.providers[workload.provider].exchange) for name, workload in self._workloads.items()
        }
        self._catalog = catalog
        self._clock = clock
        self._endpoint = endpoint
        self.given: dict[str, Tokens] = {} if before is None else before.given_for(self.made_of)
        self._news = asyncio.Event()

    def given_for(self, made_of: Mapping[str, tuple[Workload, Exchange | None]]) -> dict[str, Tokens]:
        """The tokens for those identities in `made_of` that are exchanged in the same way."""
        return {name: tokens for name, tokens in self.given.items() if made_of.get(name) == self.made_of[name]}

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """Every workload, and again when one gets another token."""
        while True:
            self._news.clear()
            faults = await asyncio.to_thread(self._faults)
            yield UnitsListed(
                tuple(self._unit(workload, faults.get(workload.profile, "")) for workload in self._workloads.values())
            )
            await self._wait(again=bool(faults))

    async def _wait(self, *, again: bool) -> None:
        """Waits for a reason to report: a token, a caller that asks, or another reading of a file that could not be used."""
        async with asyncio.TaskGroup() as tasks:
            nap = tasks.create_task(self._look_again()) if again else None
            await self._news.wait()
            if nap is not None:
                nap.cancel()

    async def _look_again(self) -> None:
        await self._clock.sleep(_LOOK_AGAIN)
        self._news.set()

    def reread(self) -> None:
        """Reports it again."""
        self._news.set()

    async def exchange(self, profile_id: str) -> RefreshFailure | None:
        """Exchanges the profile's identity token with one request. None: its unit has a new token."""
        workload = self._workloads[profile_id]
        exchange = self._catalog.providers[workload.provider].exchange
        if exchange is None:
            raise ValueError("the provider of the workload does not support workload identities")
        try:
            identity = await asyncio.to_thread(_read, workload)
        except _NoToken as missing:
            return RefreshFailure(Blame.TRANSIENT, "no_identity", str(missing), _LOOK_AGAIN)
        answer = await self._endpoint.ask(exchange_request(exchange, workload, identity))
        meant = read_exchange(answer, identity, token_file=workload.token_file, now=self._clock.now())
        if isinstance(meant, RefreshFailure):
            return meant
        self.given[profile_id] = meant
        self._news.set()
        return None

    def _unit(self, workload: Workload, fault: str) -> Unit:
        given = self.given.get(workload.profile)
        profile = Profile(
            id=workload.profile,
            provider=workload.provider,
            mode=Mode.WIF,
            source=self.name,
            unit=workload.profile,
            origin=f"the identity token in {workload.token_file}",
            secret=given.access if given else None,
            fault="" if given else _UNTRIED,
            issued_at=given.issued_at if given else None,
            expires_at=given.expires_at if given else None,
            workload=True,
        )
        return Unit(workload.profile, (profile,), (SourceFault(workload.token_file, fault),) if fault else ())

    def _faults(self) -> dict[str, str]:
        """The faults of the token files, by profile."""
        found = {}
        for workload in self._workloads.values():
            try:
                _read(workload)
            except _NoToken as missing:
                found[workload.profile] = str(missing)
        return found


def _read(workload: Workload) -> Identity:
    path = workload.token_file
    try:
        return read_identity(read_some(path, limit=SIZE_MAX).data)
    except FileNotFoundError:
        reason = f"there is no identity token at {path}: mount a projected service-account token there, or correct token_file"
    except Unreadable as unreadable:
        reason = str(unreadable)
    except Unfit as unfit:
        reason = f"{path} {unfit}"
    raise _NoToken(reason)
