"""`grpc.health.v1.Health`, answered from what is true now."""

from contextlib import aclosing
from typing import Final

from grpc_health.v1 import health_pb2 as pb

from equabot_broker.engine.health import Readiness
from equabot_broker.rpc.calls import Call, Service
from equabot_broker.rpc.status import ServiceUnknown, TooManyServices

_LISTED: Final = 1000

_Status = pb.HealthCheckResponse


class HealthServicer:
    """What a probe asks. The names are those of `Readiness`."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def service(self) -> Service:
        """What a server serves."""
        return Service(pb.DESCRIPTOR.services_by_name["Health"], {"Check": self.check, "List": self.list, "Watch": self.watch})

    async def check(self, request: pb.HealthCheckRequest, call: Call) -> pb.HealthCheckResponse:
        """Raises ServiceUnknown."""
        status = self._readiness.status(request.service)
        if status is None:
            raise ServiceUnknown
        return _response(status)

    async def list(self, request: pb.HealthListRequest, call: Call) -> pb.HealthListResponse:
        """All names. Raises TooManyServices where there are more than the protocol wants in one answer."""
        statuses = self._readiness.statuses()
        if len(statuses) > _LISTED:
            raise TooManyServices(f"{len(statuses)} services are too many to list: check them by name")
        return pb.HealthListResponse(statuses={name: _response(status) for name, status in statuses.items()})

    async def watch(self, request: pb.HealthCheckRequest, call: Call) -> None:
        """The status now, and each change of it, for as long as the caller stays."""
        async with aclosing(self._readiness.watch(request.service)) as statuses:
            async for status in statuses:
                await call.write(_response(status))


def _response(serving: bool | None) -> pb.HealthCheckResponse:  # noqa: FBT001 - None is a third answer
    if serving is None:
        return _Status(status=_Status.SERVICE_UNKNOWN)
    return _Status(status=_Status.SERVING if serving else _Status.NOT_SERVING)
