"""Refusals on the wire: which code, and the `google.rpc.Status` that says why. The only place that names a status code.

What a client may rely on is the `ErrorInfo` in the trailer `grpc-status-details-bin`: domain, reason, metadata. Everything that
is sent is cut to a size that fits the 8 KiB of headers a client accepts, however many candidates there are to tell of.
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
"""Seconds in the longest duration that the wire can say."""

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
"""Kinds of the reasons above that a client may tell apart by their code."""


class ServiceUnknown(Exception):
    """Health was asked about a name that means nothing."""


class TooManyServices(Exception):
    """Health was asked for a list that is too long to send."""


class MessageLate(Exception):
    """A call was announced, and its message did not come in time."""


@dataclass(frozen=True, slots=True)
class StatusRefusal:
    """What `abort` takes."""

    code: StatusCode
    details: str
    trailers: tuple[tuple[str, bytes], ...] = ()


def refusal(error: Exception) -> StatusRefusal | None:
    """The refusal an error comes to; None for one that nobody meant to raise."""
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
    """For an error nobody meant to raise: all that the outside learns is where to look."""
    return StatusRefusal(StatusCode.INTERNAL, f"internal error: the broker's log tells more under incident {incident}")


def explained(error: errors.BrokerError) -> StatusRefusal:
    """The refusal that a refusal of ours comes to."""
    code = code_of(type(error))
    message = _cut(error.message, _MESSAGE_BYTES)
    status = Status(code=code.value[0], message=message)
    status.details.add().Pack(ErrorInfo(domain=DOMAIN, reason=error.reason, metadata=_bounded(error.metadata)))
    if error.wait is not None:
        status.details.add().Pack(RetryInfo(retry_delay=_duration(error.wait)))
    return StatusRefusal(code, message, ((TRAILER, status.SerializeToString()),))


def _bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """As many entries as fit, and how many more there are."""
    shown: dict[str, str] = {}
    room = _METADATA_BYTES
    for key, value in metadata.items():
        key, value = _cut(key, _ENTRY_BYTES), _cut(value, _ENTRY_BYTES)  # noqa: PLW2901 - what was given is of no more use
        room -= len(key.encode()) + len(value.encode()) + 8
        if room < 0:
            shown["more"] = f"{len(metadata) - len(shown)} are not shown"
            break
        shown[key] = value
    return shown


def _cut(text: str, size: int) -> str:
    """At most so many bytes of UTF-8, whatever is in the text."""
    whole = text.encode(errors="replace")
    return whole.decode() if len(whole) <= size else whole[: size - 3].decode(errors="ignore") + "…"


def _duration(seconds: float) -> Duration:
    whole, rest = divmod(min(max(seconds, 0.0), _LONGEST), 1)
    return Duration(seconds=int(whole), nanos=int(rest * 1e9))
