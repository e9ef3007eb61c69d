"""Envoy's external processing (`envoy.service.ext_proc.v3`): one service with two tasks, told apart by a stream's metadata."""

from collections.abc import AsyncIterator
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.envoy.cutting import Cutting
from equabot_broker.envoy.cutting_filters import TASK
from equabot_broker.envoy.scrubbing import ScrubbingServicer
from equabot_broker.rpc.calls import Call, Service


class ProcessingServicer:
    """Hands each stream to its task. `scrubbing` is None where answers are not scrubbed."""

    def __init__(self, *, cutting: Cutting, scrubbing: ScrubbingServicer | None) -> None:
        self._cutting = cutting
        self._scrubbing = scrubbing

    def service(self) -> Service:
        """What the control server serves."""
        return Service(pb.DESCRIPTOR.services_by_name["ExternalProcessor"], {"Process": self.process})

    async def process(self, requests: AsyncIterator[Any], call: Call) -> None:
        """One request of an agent, and its answer."""
        if TASK in (call.invocation_metadata() or ()):
            await self._cutting.process(requests, call)
        elif self._scrubbing is not None:
            await self._scrubbing.process(requests, call)
        else:
            raise InvalidArgument("answers are not scrubbed here: see gateway.scrub")
