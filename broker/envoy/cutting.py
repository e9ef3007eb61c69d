"""Requests under way, by agent: what is suspended is cut. Envoy keeps a stream open for each of them (`cutting_filters`)."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from envoy.type.v3.http_status_pb2 import HttpStatus

from broker.domain.errors import AgentSuspended, InvalidArgument
from broker.domain.provider import Catalog
from broker.engine.suspensions import Suspensions, refusal
from broker.envoy.cutting_filters import AUTHORIZATION
from broker.envoy.local_replies import SUSPENDED, TOO_MANY
from broker.envoy.refusals import Refused, body, refusal_of, said
from broker.rpc.calls import Call

_PER_AGENT: Final = 512
_IN_ALL: Final = 1536
"""Streams that are kept for one agent, and for all. Each costs some 30 KiB; the control socket takes 2048 calls at once."""
_CONTINUE: Final = {
    "request_headers": pb.ProcessingResponse(request_headers=pb.HeadersResponse()),
    "response_headers": pb.ProcessingResponse(response_headers=pb.HeadersResponse()),
    "response_trailers": pb.ProcessingResponse(response_trailers=pb.TrailersResponse()),
}


class Cutting:
    """Holds the streams of requests under way, and ends those of an agent in the turn of the loop that suspends it."""

    def __init__(
        self, *, catalog: Catalog, suspensions: Suspensions, per_agent: int = _PER_AGENT, in_all: int = _IN_ALL
    ) -> None:
        self._catalog = catalog
        self._suspensions = suspensions
        self._per_agent = per_agent
        self._in_all = in_all
        self._open: dict[str, set[_Watched]] = {}
        self._count = 0
        suspensions.listeners.append(self._changed)

    async def process(self, requests: AsyncIterator[Any], call: Call) -> None:
        """One request of an agent: returns once it has ended, or was cut. A request of no agent is let be."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") not in _CONTINUE:
            raise InvalidArgument("the request is not a message of this method")
        told = first.metadata_context.filter_metadata
        if AUTHORIZATION not in told:
            return
        fields = told[AUTHORIZATION].fields
        agent, provider = fields["agent"].string_value, self._catalog.providers.get(fields["provider"].string_value)
        refused: Refused | None = None
        try:
            with self._kept(agent) as watched:
                await call.write(_CONTINUE[first.WhichOneof("request")])
                await watched.ends(requests, call)
                refused = refusal_of(refusal(agent)) if watched.cut else None
        except AgentSuspended as suspended:
            refused = refusal_of(suspended)
        except Refused as full:
            refused = full
        if refused is not None:
            await call.write(_ended(refused, "" if provider is None else provider.api))

    @contextmanager
    def _kept(self, agent: str) -> Iterator["_Watched"]:
        """Raises AgentSuspended, Refused."""
        self._suspensions.check(agent)
        mine = self._open.setdefault(agent, set())
        if len(mine) >= self._per_agent or self._count >= self._in_all:
            raise Refused(503, "OVERLOADED", "too many answers are under way in the gateway", retry_after=1.0)
        watched = _Watched()
        mine.add(watched)
        self._count += 1
        try:
            yield watched
        finally:
            self._count -= 1
            mine.discard(watched)
            if not mine:
                self._open.pop(agent, None)

    def _changed(self, agent: str) -> None:
        if self._suspensions.of(agent) is not None:
            for watched in self._open.get(agent, ()):
                watched.cut = True
                watched.over.set()


class _Watched:
    """A request under way. It is `over` when Envoy says so, or the broker, which has `cut` it then."""

    __slots__ = ("cut", "over")

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.cut = False

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


def _ended(refused: Refused, api: str) -> pb.ProcessingResponse:
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
            details=SUSPENDED if refused.reason == AgentSuspended.reason else TOO_MANY,
        )
    )
