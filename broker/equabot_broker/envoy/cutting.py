"""Cuts active requests when their agent is suspended, their lease ends or their profile is deleted (ADR 19). Envoy keeps a
stream open for each request (`cutting_filters`)."""

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
from equabot_broker.envoy.refusals import RequestRefused, body, refusal_headers, refusal_of
from equabot_broker.envoy.waits import Waits
from equabot_broker.ports import Clock
from equabot_broker.rpc.calls import Call

_PER_AGENT: Final = 512
_IN_ALL: Final = 1536
"""The maximum numbers of streams, for one agent and in total. Each stream costs about 30 KiB; the control socket accepts 2048
concurrent calls."""
_CONTINUE: Final = {
    "request_headers": pb.ProcessingResponse(request_headers=pb.HeadersResponse()),
    "response_headers": pb.ProcessingResponse(response_headers=pb.HeadersResponse()),
    "response_trailers": pb.ProcessingResponse(response_trailers=pb.TrailersResponse()),
}
_DETAILS: Final = {AgentSuspended.reason: SUSPENDED, "OVERLOADED": TOO_MANY}
_EXPIRED: Final = frozenset({"expired", "max_ttl"})
"""The reasons on the wire for a lease whose time is over."""


class Cutting:
    """Holds the streams of active requests. It ends them in the same turn of the event loop that suspends their agent, ends
    their lease or deletes their profile.

    A lease whose token is taken over by its successor does not end its requests.
    """

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
        """Applies a new configuration."""
        self._catalog = catalog

    async def process(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Watches one request of an agent; returns when the request has ended or was cut. A request without an agent is
        ignored."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") not in _CONTINUE:
            raise InvalidArgument("the request is not a message of this method")
        metadata = first.metadata_context.filter_metadata
        if AUTHORIZATION not in metadata:
            return
        fields = {name: value.string_value for name, value in metadata[AUTHORIZATION].fields.items()}
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
        """Raises AgentSuspended, LeaseNotFound, LeaseExpired, ProfileNotFound or Refused if the request may not go on."""
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
            raise RequestRefused(503, "OVERLOADED", "too many responses are active in the gateway", retry_after=1.0)
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
                watched.end(over(f"the lease has ended ({reason}), and its active requests with it: acquire another"))

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry: cuts the requests on profiles that are gone."""
        names = {profile for _, profile in keys}
        for agent, open_ in self._open.items():
            for watched in open_:
                if watched.profile in names and (gone := self._gone(agent, watched.profile)):
                    watched.end(gone)

    def _gone(self, agent: str, profile: str) -> ProfileNotFound | None:
        """The reason why a request with this profile may not go on. While a source has not been read, its profiles do not
        count as deleted."""
        if not profile or self._registry.material.unread or self._registry.find(agent, profile) is not None:
            return None
        return ProfileNotFound(f"profile {profile!r} was deleted, and its active requests ended: try again")


class _Watched:
    """An active request with its token and its profile. It is `over` when Envoy reports its end or when the broker has `cut`
    it."""

    __slots__ = ("cut", "over", "profile", "token")

    def __init__(self, token: bytes, profile: str) -> None:
        self.token = token
        self.profile = profile
        self.over = asyncio.Event()
        self.cut: BrokerError | None = None

    def end(self, why: BrokerError) -> None:
        """Cuts the request."""
        self.cut = self.cut or why
        self.over.set()

    async def ends(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Waits until the request is over."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_rest(requests, call))
            listening.add_done_callback(lambda _: self.over.set())
            await self.over.wait()
            listening.cancel()


async def _rest(requests: AsyncIterator[Any], call: Call) -> None:
    """Envoy sends its trailers and waits for the answer; it ends the stream together with the request."""
    async for request in requests:
        part = "" if request is None else request.WhichOneof("request")
        if part not in _CONTINUE:
            return
        await call.write(_CONTINUE[part])


def _answer(refused: RequestRefused, api: str) -> pb.ProcessingResponse:
    """The answer to whatever Envoy waits for. If the agent has no answer yet, it gets this one; else the request is reset in
    both directions."""
    headers = [
        HeaderValueOption(header=HeaderValue(key=name, raw_value=value.encode()))
        for name, value in refusal_headers(refused).items()
    ]
    return pb.ProcessingResponse(
        immediate_response=pb.ImmediateResponse(
            status=HttpStatus(code=refused.status),
            headers=pb.HeaderMutation(set_headers=headers),
            body=json.dumps(body(refused, api)).encode(),
            details=_DETAILS.get(refused.reason, ENDED),
        )
    )
