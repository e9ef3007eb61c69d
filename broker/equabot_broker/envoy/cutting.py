"""Requests under way, by agent: cut when the agent is suspended, the lease ends or the profile is deleted. Envoy keeps a stream
open for each of them (`cutting_filters`)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.type.v3.http_status_pb2 import HttpStatus

from equabot_broker.domain.errors import (
    AgentSuspended,
    BrokerError,
    InvalidArgument,
    LeaseExpired,
    LeaseNotFound,
    ProfileNotFound,
    ShuttingDown,
)
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.provider import Catalog
from equabot_broker.engine.leases.gateway_leases import GatewayLeases
from equabot_broker.engine.leases.suspensions import Suspensions, refusal
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.envoy.cutting_filters import AUTHORIZATION
from equabot_broker.envoy.local_replies import ENDED, SUSPENDED, TOO_MANY
from equabot_broker.envoy.refusals import RequestRefused, body, refusal_of, said
from equabot_broker.envoy.waits import Waits
from equabot_broker.ports import Clock
from equabot_broker.rpc.calls import Call

_PER_AGENT: Final = 512
_IN_ALL: Final = 1536
"""Streams that are kept for one agent, and for all. Each costs some 30 KiB; the control socket takes 2048 calls at once."""
_CONTINUE: Final = {
    "request_headers": pb.ProcessingResponse(request_headers=pb.HeadersResponse()),
    "response_headers": pb.ProcessingResponse(response_headers=pb.HeadersResponse()),
    "response_trailers": pb.ProcessingResponse(response_trailers=pb.TrailersResponse()),
}
_DETAILS: Final = {AgentSuspended.reason: SUSPENDED, "OVERLOADED": TOO_MANY}
_EXPIRED: Final = frozenset({"expired", "max_ttl"})
"""Words of the wire for a lease whose time is over."""


class Cutting:
    """Holds the streams of requests under way, and ends them in the turn of the loop that suspends their agent, ends their
    lease or deletes their profile. A lease whose token goes on with its successor has not ended for them."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        suspensions: Suspensions,
        gateway_leases: GatewayLeases,
        registry: ProfileRegistry,
        clock: Clock,
        per_agent: int = _PER_AGENT,
        in_all: int = _IN_ALL,
    ) -> None:
        self._catalog = catalog
        self._suspensions = suspensions
        self._gateway_leases = gateway_leases
        self._clock = clock
        self._waits = Waits(gateway_leases)
        self._registry = registry
        self._per_agent = per_agent
        self._in_all = in_all
        self._open: dict[str, set[_Watched]] = {}
        self._count = 0

    def apply(self, catalog: Catalog) -> None:
        """The configuration is another."""
        self._catalog = catalog

    async def process(self, requests: AsyncIterator[Any], call: Call) -> None:
        """One request of an agent: returns once it has ended, or was cut. A request of no agent is let be."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") not in _CONTINUE:
            raise InvalidArgument("the request is not a message of this method")
        told = first.metadata_context.filter_metadata
        if AUTHORIZATION not in told:
            return
        fields = {name: value.string_value for name, value in told[AUTHORIZATION].fields.items()}
        provider = self._catalog.providers.get(fields.get("provider", ""))
        refused: RequestRefused | None = None
        try:
            with self._kept(fields) as watched:
                await call.write(self._continued(first, fields))
                await watched.ends(requests, call)
                refused = None if watched.cut is None else refusal_of(watched.cut)
        except BrokerError as over:
            refused = refusal_of(over)
        except RequestRefused as full:
            refused = full
        if refused is not None:
            await call.write(_answer(refused, "" if provider is None else provider.api))

    def _continued(self, first: Any, fields: dict[str, str]) -> pb.ProcessingResponse:
        part = first.WhichOneof("request")
        if part != "response_headers":
            return _CONTINUE[part]
        return self._waits.continued(first.response_headers, fields, now=self._clock.now())

    @contextmanager
    def _kept(self, fields: dict[str, str]) -> Iterator["_Watched"]:
        """Raises AgentSuspended, LeaseNotFound, LeaseExpired, ProfileNotFound, Refused."""
        agent = fields.get("agent", "")
        watched = _Watched(bytes.fromhex(fields.get("token", "")), fields.get("profile", ""))
        self._suspensions.check(agent)
        with suppress(ShuttingDown):
            if watched.token:
                self._gateway_leases.bearer(watched.token)
        if gone := self._gone(agent, watched.profile):
            raise gone
        mine = self._open.setdefault(agent, set())
        if len(mine) >= self._per_agent or self._count >= self._in_all:
            raise RequestRefused(503, "OVERLOADED", "too many answers are under way in the gateway", retry_after=1.0)
        mine.add(watched)
        self._count += 1
        try:
            yield watched
        finally:
            self._count -= 1
            mine.discard(watched)
            if not mine:
                self._open.pop(agent, None)

    def agent_changed(self, agent: str) -> None:
        """A listener of the suspensions: cuts the requests of an agent that is suspended."""
        if self._suspensions.of(agent) is not None:
            for watched in self._open.get(agent, ()):
                watched.end(refusal(agent))

    def lease_ended(self, lease: Lease, reason: str) -> None:
        """A listener of the lease table: cuts the requests of a token whose lease has ended."""
        if not lease.token or reason == "succeeded":
            return
        for watched in self._open.get(lease.agent, ()):
            if watched.token == lease.token:
                over = LeaseExpired if reason in _EXPIRED else LeaseNotFound
                watched.end(over(f"the lease has ended ({reason}), and with it what was under way: acquire another"))

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry: cuts the requests on profiles that are gone."""
        names = {profile for _, profile in keys}
        for agent, open_ in self._open.items():
            for watched in open_:
                if watched.profile in names and (gone := self._gone(agent, watched.profile)):
                    watched.end(gone)

    def _gone(self, agent: str, profile: str) -> ProfileNotFound | None:
        """Why a request with this profile does not go on. What a source holds that is not read yet is not gone."""
        if not profile or self._registry.material.unread or self._registry.find(agent, profile) is not None:
            return None
        return ProfileNotFound(f"profile {profile!r} is gone, and with it what was under way: ask again")


class _Watched:
    """A request under way, with whose token and on which profile. It is `over` when Envoy says so, or the broker, which has
    `cut` it then."""

    __slots__ = ("cut", "over", "profile", "token")

    def __init__(self, token: bytes, profile: str) -> None:
        self.token = token
        self.profile = profile
        self.over = asyncio.Event()
        self.cut: BrokerError | None = None

    def end(self, why: BrokerError) -> None:
        """Cuts it."""
        self.cut = self.cut or why
        self.over.set()

    async def ends(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Returns when it is over."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_rest(requests, call))
            listening.add_done_callback(lambda _: self.over.set())
            await self.over.wait()
            listening.cancel()


async def _rest(requests: AsyncIterator[Any], call: Call) -> None:
    """Envoy asks about trailers, and waits for the answer; it ends the stream with the request."""
    async for request in requests:
        part = "" if request is None else request.WhichOneof("request")
        if part not in _CONTINUE:
            return
        await call.write(_CONTINUE[part])


def _answer(refused: RequestRefused, api: str) -> pb.ProcessingResponse:
    """Whatever Envoy waits for: where nothing was answered yet this is the answer, else the request is reset in both
    directions."""
    headers = [
        HeaderValueOption(header=HeaderValue(key=name, raw_value=value.encode())) for name, value in said(refused).items()
    ]
    return pb.ProcessingResponse(
        immediate_response=pb.ImmediateResponse(
            status=HttpStatus(code=refused.status),
            headers=pb.HeaderMutation(set_headers=headers),
            body=json.dumps(body(refused, api)).encode(),
            details=_DETAILS.get(refused.reason, ENDED),
        )
    )
