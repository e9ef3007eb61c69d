"""The `Broker` service of one agent: reads the request, calls the engine, and converts the answer."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from equabot.broker.v1 import broker_pb2 as pb
from equabot_broker.domain.errors import RefreshFailed
from equabot_broker.engine.leases.service import LeaseService
from equabot_broker.engine.leases.streams import NoticeKind
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.engine.profiles.statuses import ProfileStatuses
from equabot_broker.engine.refresh.scheduler import RefreshScheduler
from equabot_broker.rpc import requests
from equabot_broker.rpc.calls import Call, Handler, Service
from equabot_broker.rpc.convert import LeaseMessages, profile_status

T = TypeVar("T")

_SOURCES_WITHIN: Final = 5.0
_REFRESH_WITHIN: Final = 35.0
_SHARE_OF_DEADLINE: Final = 0.5
"""The part of a caller's deadline after which the answer says why the caller has to wait."""


class BrokerServicer:
    """Answers one agent: the callers that can open its socket. `observe` gets the seconds that each request for a lease
    took."""

    def __init__(
        self,
        agent: str,
        *,
        lease_service: LeaseService,
        resolver: Resolver,
        profile_statuses: ProfileStatuses,
        ingest: Ingest,
        refresh_scheduler: RefreshScheduler,
        suspensions: Suspensions,
        messages: LeaseMessages,
        observe: Callable[[float], None],
    ) -> None:
        self._agent = agent
        self._lease_service = lease_service
        self._resolver = resolver
        self._profile_statuses = profile_statuses
        self._ingest = ingest
        self._refresh_scheduler = refresh_scheduler
        self._suspensions = suspensions
        self._messages = messages
        self._observe = observe

    def service(self) -> Service:
        """The handlers for a server. A suspended agent is refused every call: what it could learn or change (existing
        profiles, their state, which is next) concerns other agents too."""
        asking: dict[str, Handler] = {
            "RevokeLease": self.revoke_lease,
            "ReportOutcome": self.report_outcome,
            "ListProfiles": self.list_profiles,
            "PinProfile": self.pin_profile,
            "UnpinProfile": self.unpin_profile,
        }
        return Service(
            pb.DESCRIPTOR.services_by_name["Broker"],
            {
                # The engine refuses these calls and records them.
                "AcquireLease": self.acquire_lease,
                "StreamLease": self.stream_lease,
                "RenewLease": self.renew_lease,
                **{name: self._unless_suspended(handler) for name, handler in asking.items()},
            },
        )

    def _unless_suspended(self, handle: Handler) -> Handler:
        async def answer(request: Any, call: Any) -> Any:
            self._suspensions.check(self._agent)
            return await handle(request, call)

        return answer

    async def acquire_lease(self, request: pb.AcquireLeaseRequest, call: Call) -> pb.Lease:
        """Grants a lease."""
        began = self._lease_service.steady()
        try:
            if not self._ingest.attempted:
                await self._wait_for_sources(call)
            asked = requests.acquire(request)
            try:
                granted = self._lease_service.acquire(self._agent, asked, waits=True)
            except RefreshFailed:
                granted = await self._retry_until_refreshed(
                    call, lambda waits: self._lease_service.acquire(self._agent, asked, waits=waits)
                )
            return self._messages.lease(granted)
        finally:
            self._observe(self._lease_service.steady() - began)

    async def stream_lease(self, request: pb.AcquireLeaseRequest, call: Call) -> None:
        """Grants a lease and sends its events until the lease or the stream ends.

        A client that does not read blocks only its own stream: a lease is renewed only if the client reads the next event.
        """
        began = self._lease_service.steady()
        try:
            if not self._ingest.attempted:
                await self._wait_for_sources(call)
            asked = requests.acquire(request)
            stream = await self._retry_until_refreshed(
                call, lambda waits: self._lease_service.stream(self._agent, asked, waits=waits)
            )
        finally:
            self._observe(self._lease_service.steady() - began)
        with stream:
            while True:
                notice = await stream.next()
                await call.write(self._messages.event(notice))
                if notice.kind is NoticeKind.REVOKED:
                    return

    async def renew_lease(self, request: pb.RenewLeaseRequest, call: Call) -> pb.Lease:
        """Extends a lease. It waits until the sources are read: after a restart a lease might look as if its profile were
        deleted."""
        lease_id, ttl = requests.renew(request)
        if not self._ingest.attempted:
            await self._wait_for_sources(call)
        return self._messages.lease(
            await self._retry_until_refreshed(call, lambda _: self._lease_service.renew(self._agent, lease_id, ttl))
        )

    async def revoke_lease(self, request: pb.RevokeLeaseRequest, call: Call) -> pb.RevokeLeaseResponse:
        """Ends a lease."""
        return pb.RevokeLeaseResponse(
            revoked=self._lease_service.revoke(self._agent, requests.required(request.lease_id, "lease_id"))
        )

    async def report_outcome(self, request: pb.ReportOutcomeRequest, call: Call) -> pb.ReportOutcomeResponse:
        """Records the outcome of a provider's answer."""
        lease_id = requests.required(request.lease_id, "lease_id")
        reported = requests.outcome(request)
        try:
            changed = self._lease_service.report(
                self._agent,
                lease_id,
                reported.outcome,
                retry_after=reported.retry_after,
                version=reported.version,
                model=reported.model,
                elapsed=reported.elapsed,
                sure=reported.sure,
            )
        except RefreshFailed:
            changed = await self._moved_on(call, lease_id)
        return pb.ReportOutcomeResponse(changed=changed)

    async def list_profiles(self, request: pb.ListProfilesRequest, call: Call) -> pb.ListProfilesResponse:
        """Sends the candidates in order."""
        provider, session = requests.text(request.provider, "provider"), requests.text(request.session, "session")
        client, model = requests.text(request.client, "client"), requests.text(request.model, "model")
        await self._wait_for_sources(call)
        statuses = self._profile_statuses.of(self._agent, provider, session=session, model=model, client=client)
        return pb.ListProfilesResponse(profiles=map(profile_status, statuses))

    async def pin_profile(self, request: pb.PinProfileRequest, call: Call) -> pb.PinProfileResponse:
        """Pins a session to a profile."""
        session = requests.required(request.session, "session")
        provider = requests.text(request.provider, "provider")
        profile = requests.required(request.profile, "profile")
        await self._wait_for_sources(call)
        self._resolver.pin(self._agent, session, provider, profile, strict=request.strict)
        return pb.PinProfileResponse()

    async def unpin_profile(self, request: pb.UnpinProfileRequest, call: Call) -> pb.UnpinProfileResponse:
        """Removes a pin."""
        session, provider = requests.required(request.session, "session"), requests.required(request.provider, "provider")
        self._resolver.unpin(self._agent, session, provider)
        return pb.UnpinProfileResponse()

    async def _wait_for_sources(self, call: Call) -> None:
        """Waits for the sources, as long as the caller's deadline leaves time for an error that says so."""
        if self._ingest.attempted:
            return
        try:
            async with asyncio.timeout(_part_of(call, _SOURCES_WITHIN)):
                await self._ingest.wait_attempted()
        except TimeoutError:
            pass

    async def _moved_on(self, call: Call, lease_id: str) -> bool:
        """Whether the due refresh gives the lease new material or another profile."""
        held = self._lease_service.look(lease_id).held
        moved = partial(self._lease_service.moved_on, self._agent, lease_id, profile=held.profile.id, version=held.version)
        try:
            return await self._refresh_scheduler.ask_until_refreshed(moved, within=_part_of(call, _REFRESH_WITHIN))
        except RefreshFailed:
            return False

    async def _retry_until_refreshed(self, call: Call, ask: Callable[[bool], T]) -> T:
        """The result of `ask`. While a login must be refreshed first, it asks again within the caller's deadline, and then
        once more without waiting."""
        try:
            return await self._refresh_scheduler.ask_until_refreshed(partial(ask, True), within=_part_of(call, _REFRESH_WITHIN))  # noqa: FBT003
        except RefreshFailed:
            return ask(False)  # noqa: FBT003


def _part_of(call: Call, longest: float) -> float:
    left = call.time_remaining()
    return longest if left is None else min(longest, left * _SHARE_OF_DEADLINE)
