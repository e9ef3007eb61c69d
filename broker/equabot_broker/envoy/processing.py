"""Envoy's external processing (`envoy.service.ext_proc.v3`): one service for two tasks. The metadata of a stream names its
task."""

from collections.abc import AsyncIterator
from typing import Any

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.envoy.cutting import Cutting
from equabot_broker.envoy.cutting_filters import TASK
from equabot_broker.envoy.scrubbing import ScrubbingServicer
from equabot_broker.rpc.calls import Call, Service


class ProcessingServicer:
    """Passes each stream to its task. `scrubbing` is None if answers are not scrubbed."""

    def __init__(self, *, cutting: Cutting, scrubbing: ScrubbingServicer | None) -> None:
        self._cutting = cutting
        self._scrubbing = scrubbing

    def service(self) -> Service:
        """The handlers for the control server."""
        return Service(pb.DESCRIPTOR.services_by_name["ExternalProcessor"], {"Process": self.process})

    async def process(self, requests: AsyncIterator[Any], call: Call) -> None:
        """Processes one request of an agent and its answer."""
        if TASK in (call.invocation_metadata() or ()):
            await self._cutting.process(requests, call)
        elif self._scrubbing is not None:
            await self._scrubbing.process(requests, call)
        else:
            raise InvalidArgument("answers are not scrubbed here: see gateway.scrub")
