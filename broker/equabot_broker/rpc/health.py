"""`grpc.health.v1.Health`, answered from the present state."""

from contextlib import aclosing
from typing import Final

from grpc_health.v1 import health_pb2 as pb

from equabot_broker.engine.health import Readiness
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.rpc.status import ServiceUnknown, TooManyServices

_LISTED: Final = 1000

_Status = pb.HealthCheckResponse


class HealthServicer:
    """Answers probes. The names are those of `Readiness`."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def service(self) -> Service:
        """The handlers for a server."""
        return Service(pb.DESCRIPTOR.services_by_name["Health"], {"Check": self.check, "List": self.list, "Watch": self.watch})

    async def check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        """Raises ServiceUnknown."""
        status = self._readiness.status(request.service)
        if status is None:
            raise ServiceUnknown
        return _response(status)

    async def list(self, request: pb.HealthListRequest, call: Call) -> pb.HealthListResponse:
        """Sends all names. Raises TooManyServices if there are more than the protocol allows in one answer."""
        statuses = self._readiness.statuses()
        if len(statuses) > _LISTED:
            raise TooManyServices(f"{len(statuses)} services are too many to list: check them by name")
        return pb.HealthListResponse(statuses={name: _response(status) for name, status in statuses.items()})

    async def watch(self, request: pb.HealthCheckRequest, call: Call) -> None:
        """Sends the status now and each change, as long as the caller stays."""
        async with aclosing(self._readiness.watch(request.service)) as statuses:
            async for status in statuses:
                await call.write(_response(status))


def _response(serving: bool | None) -> pb.HealthCheckResponse:  # noqa: FBT001 - None is a third answer
    if serving is None:
        return _Status(status=_Status.SERVICE_UNKNOWN)
    return _Status(status=_Status.SERVING if serving else _Status.NOT_SERVING)
