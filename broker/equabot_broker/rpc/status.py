"""Refusals on the wire: the code, and the `google.rpc.Status` with the reason. Only this module names status codes.

Clients may rely on the `ErrorInfo` in the trailer `grpc-status-details-bin`: domain, reason, metadata. It is cut to fit the 8
KiB of headers that a client accepts, however many candidates it names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from equabot_broker.domain import errors

DOMAIN: Final = "equabot.dev"
TRAILER: Final = "grpc-status-details-bin"

_MESSAGE_BYTES: Final = 700
_METADATA_BYTES: Final = 2048
_ENTRY_BYTES: Final = 200
_LONGEST: Final = 315_576_000_000
"""Seconds of the longest duration on the wire."""

CODES: Final[Mapping[type[errors.BrokerError], StatusCode]] = {
    errors.InvalidArgument: StatusCode.INVALID_ARGUMENT,
    errors.ProviderUnknown: StatusCode.NOT_FOUND,
    errors.ProfileNotFound: StatusCode.NOT_FOUND,
    errors.NoUsableProfile: StatusCode.FAILED_PRECONDITION,
    errors.PolicyDenied: StatusCode.PERMISSION_DENIED,
    errors.DeliveryNotAllowed: StatusCode.PERMISSION_DENIED,
    errors.AgentSuspended: StatusCode.PERMISSION_DENIED,
    errors.LeaseNotFound: StatusCode.NOT_FOUND,
    errors.LeaseExpired: StatusCode.FAILED_PRECONDITION,
    errors.LeaseLimit: StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    errors.SourceNotSynced: StatusCode.UNAVAILABLE,
    errors.RefreshFailed: StatusCode.UNAVAILABLE,
    errors.ReauthRequired: StatusCode.FAILED_PRECONDITION,
    errors.AuditUnavailable: StatusCode.UNAVAILABLE,
    errors.StateUnavailable: StatusCode.UNAVAILABLE,
    errors.ShuttingDown: StatusCode.UNAVAILABLE,
}
_NARROWER: Final[Mapping[type[errors.BrokerError], StatusCode]] = {
    errors.Unidentified: StatusCode.UNAUTHENTICATED,
    errors.WebsocketRefused: StatusCode.PERMISSION_DENIED,
    errors.IdentityUnchecked: StatusCode.UNAVAILABLE,
}
"""Kinds of the reasons above that have a code of their own."""


class ServiceUnknown(Exception):
    """A health check of an unknown service."""


class TooManyServices(Exception):
    """A health list that is too long to send."""


class MessageLate(Exception):
    """A call whose message did not arrive in time."""


@dataclass(frozen=True, slots=True)
class StatusRefusal:
    """The arguments of `abort`."""

    code: StatusCode
    details: str
    trailers: tuple[tuple[str, bytes], ...] = ()


def refusal(error: Exception) -> StatusRefusal | None:
    """The refusal for an error; None for an unexpected exception."""
    match error:
        case errors.BrokerError():
            return explained(error)
        case ServiceUnknown():
            return StatusRefusal(StatusCode.NOT_FOUND, "unknown service")
        case TooManyServices():
            return StatusRefusal(StatusCode.RESOURCE_EXHAUSTED, _cut(str(error), _MESSAGE_BYTES))
        case MessageLate():
            return StatusRefusal(StatusCode.DEADLINE_EXCEEDED, str(error))
    return None


def code_of(kind: type[errors.BrokerError]) -> StatusCode:
    """The code that a kind of refusal has on the wire."""
    return CODES.get(kind) or _NARROWER.get(kind, StatusCode.UNKNOWN)


def internal(incident: str) -> StatusRefusal:
    """The status of an unexpected exception: it names the incident in the log, and nothing else."""
    return StatusRefusal(StatusCode.INTERNAL, f"internal error: the broker's log has the details under incident {incident}")


def explained(error: errors.BrokerError) -> StatusRefusal:
    """The refusal for an error of the domain."""
    code = code_of(type(error))
    message = _cut(error.message, _MESSAGE_BYTES)
    status = Status(code=code.value[0], message=message)
    status.details.add().Pack(ErrorInfo(domain=DOMAIN, reason=error.reason, metadata=_bounded(error.metadata)))
    if error.wait is not None:
        status.details.add().Pack(RetryInfo(retry_delay=_duration(error.wait)))
    return StatusRefusal(code, message, ((TRAILER, status.SerializeToString()),))


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """As many entries as fit, and the number of the others."""
    shown: dict[str, str] = {}
    room = _METADATA_BYTES
    for key, value in metadata.items():
        key, value = _cut(key, _ENTRY_BYTES), _cut(value, _ENTRY_BYTES)  # noqa: PLW2901 - the original is not needed again
        room -= len(key.encode()) + len(value.encode()) + 8
        if room < 0:
            shown["more"] = f"{len(metadata) - len(shown)} are not shown"
            break
        shown[key] = value
    return shown


def _cut(text: str, size: int) -> str:
    """The text cut to this number of bytes of UTF-8."""
    whole = text.encode(errors="replace")
    return whole.decode() if len(whole) <= size else whole[: size - 3].decode(errors="ignore") + "…"


def _duration(seconds: float) -> Duration:
    whole, rest = divmod(min(max(seconds, 0.0), _LONGEST), 1)
    return Duration(seconds=int(whole), nanos=int(rest * 1e9))
