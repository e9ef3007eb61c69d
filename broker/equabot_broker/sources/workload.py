"""Workloads' identities: profiles whose secret is what a vendor gave for an identity token, and which no file holds.

The source exchanges when it is asked to; when that is to be done, the engine decides. The token's file is read again each time,
so that what the kubelet has put there is what is sent.
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

_UNTRIED: Final = "its identity has not been exchanged yet, which a running broker does"
_LOOK_AGAIN: Final = 15.0
"""Seconds until a file that could not be used is looked at again: an operator may be correcting it."""


class _NoToken(Exception):
    """Why there is no identity token to exchange."""


class Workloads:
    """The source `workload`. One unit a workload, named after its profile.

    A profile is there from the beginning, without a secret until its identity has been exchanged once, and keeps its last one
    whatever becomes of later exchanges.
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
        """`before` is the source of an earlier configuration: what it was given for the same identities goes on."""
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
        """What was given, for those identities that are exchanged as here."""
        return {name: tokens for name, tokens in self.given.items() if made_of.get(name) == self.made_of[name]}

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """Every workload, and again whenever one has another token."""
        while True:
            self._news.clear()
            faults = await asyncio.to_thread(self._faults)
            yield UnitsListed(
                tuple(self._unit(workload, faults.get(workload.profile, "")) for workload in self._workloads.values())
            )
            await self._wait(again=bool(faults))

    async def _wait(self, *, again: bool) -> None:
        """Until there is a reason to report: a token, a caller who asks, or a file that could not be used and may be now."""
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
        """Exchanges the profile's identity. None: its unit has another token now. One request, and no second one."""
        workload = self._workloads[profile_id]
        exchange = self._catalog.providers[workload.provider].exchange
        if exchange is None:
            raise ValueError("a provider that knows no workload identity has a workload")
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
        """What is wrong with the files, by profile."""
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
        reason = f"there is no identity token in {path}: mount a projected service-account token there, or name its file"
    except Unreadable as unreadable:
        reason = str(unreadable)
    except Unfit as unfit:
        reason = f"{path} {unfit}"
    raise _NoToken(reason)
