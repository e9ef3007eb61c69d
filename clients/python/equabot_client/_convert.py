"""The one place that translates between the wire and Python's types.

Protobuf messages print their secrets, so none is kept in a variable longer than it takes to read it.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import errors
from equabot_client._lease import Answered, EventKind, Lease, LeaseEvent, LeaseRequest, Outcome, Profile
from equabot_client._secret import Secret, SecretMap
from equabot_client._status import TRAILER, error_info

_DOMAIN: Final = "equabot.dev"
_KINDS: Final = {kind.value: kind for kind in EventKind}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One unary call: which, with what, and how its answer reads."""

    method: str
    request: object = field(repr=False)
    read: Callable[[Any], T] = field(repr=False)


def acquire(request: LeaseRequest) -> Ask[Lease]:
    return Ask("AcquireLease", acquire_request(request), lease)


def renew(lease_id: str, ttl: timedelta | None = None) -> Ask[Lease]:
    return Ask("RenewLease", pb.RenewLeaseRequest(lease_id=lease_id, ttl=_duration(ttl)), lease)


def revoke(lease_id: str) -> Ask[bool]:
    return Ask("RevokeLease", pb.RevokeLeaseRequest(lease_id=lease_id), _revoked)


def report(lease: Lease, outcome: Outcome, answered: Answered) -> Ask[bool]:
    request = pb.ReportOutcomeRequest(
        lease_id=lease.id,
        outcome=pb.Outcome.Value(outcome.name),
        retry_after=_duration(answered.get("retry_after")),
        version=lease.version,
        model=answered.get("model") or "",
        elapsed=_duration(answered.get("elapsed")),
        about_request=answered.get("about_request", False),
    )
    return Ask("ReportOutcome", request, _changed)


def list_profiles(
    provider: str | None, session: str | None, *, client: str | None = None, model: str | None = None
) -> Ask[tuple[Profile, ...]]:
    request = pb.ListProfilesRequest(provider=provider or "", session=session or "", client=client or "", model=model or "")
    return Ask("ListProfiles", request, profiles)


def pin(session: str, provider: str, profile: str, *, strict: bool) -> Ask[None]:
    request = pb.PinProfileRequest(session=session, provider=provider, profile=profile, strict=strict)
    return Ask("PinProfile", request, _nothing)


def unpin(session: str, provider: str) -> Ask[None]:
    return Ask("UnpinProfile", pb.UnpinProfileRequest(session=session, provider=provider), _nothing)


def acquire_request(request: LeaseRequest) -> pb.AcquireLeaseRequest:
    """A provider with a colon in it is a profile id, which may stand alone."""
    provider, profile = request.provider, request.profile
    if profile is None and ":" in provider:
        provider, profile = "", provider
    return pb.AcquireLeaseRequest(
        provider=provider,
        profile=profile or "",
        session=request.session or "",
        model=request.model or "",
        ttl=_duration(request.ttl),
        delivery=request.delivery or "",
        succeeds=request.succeeds or "",
        client=request.client or "",
        holder=request.holder or "",
    )


def lease(message: pb.Lease) -> Lease:
    """Raises Unexpected for instants that no calendar has."""
    try:
        return Lease(
            id=message.id,
            provider=message.provider,
            profile=message.profile,
            mode=message.mode,
            delivery=message.delivery,
            secret=Secret(message.secret),
            headers=SecretMap(message.headers),
            env=SecretMap(message.env),
            base_url=message.base_url,
            issued_at=_instant(message.issued_at),
            expires_at=_instant(message.expires_at),
            max_expires_at=_instant(message.max_expires_at),
            credential_expires_at=_optional(message, "credential_expires_at"),
            renewable=message.renewable,
            version=message.version,
            notice=message.notice,
        )
    except (ValueError, OverflowError):
        del message  # a traceback with locals would print it
        raise errors.Unexpected("the broker's lease holds an instant that is none") from None


def event(message: pb.LeaseEvent) -> LeaseEvent:
    """Raises Unexpected as `lease` does."""
    try:
        return LeaseEvent(
            kind=_KINDS.get(message.kind, EventKind.UNKNOWN),
            lease=lease(message.lease) if message.HasField("lease") else None,
            reason=message.reason,
            lease_id=message.lease_id,
        )
    except errors.Unexpected:
        del message
        raise


def profiles(message: pb.ListProfilesResponse) -> tuple[Profile, ...]:
    return tuple(map(_profile, message.profiles))


def error(raised: grpc.RpcError, address: str) -> errors.EquabotError:
    """The failure of a call, as the error of its reason."""
    code, details = raised.code(), raised.details() or ""
    trailers: Any = raised.trailing_metadata() or ()
    # Some releases of grpcio give pairs that `dict` takes for mappings.
    told = dict(tuple(pair) for pair in trailers)
    reason, metadata, wait = error_info(told.get(TRAILER, b""), domain=_DOMAIN)
    if reason:
        return errors.by_reason(reason, details, metadata=metadata, retry_after=wait)
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return unavailable(address, details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceeded(f"the broker at {address} did not answer in time")
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.Unsupported(f"what answers at {address} does not know this call: {details}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "larger than max" in details and not details.startswith("CLIENT"):
            # gRPC refuses it before the broker sees it, and so without a reason of the broker's.
            return errors.InvalidArgument("the request is larger than the broker accepts: shorten its names")
        case _:
            return errors.Unexpected(f"{address} answered {code.name}: {details}")


_SYSTEMS = (errno.ECONNREFUSED, errno.ENOENT, errno.EACCES, errno.ETIMEDOUT, errno.EHOSTUNREACH)


def unavailable(address: str, details: str) -> errors.BrokerUnavailable:
    """No broker there, with what to look at."""
    remedy = _remedy(address, details)
    said = f"no broker answers at {address}: {remedy} ({_shortly(details)})"
    return errors.BrokerUnavailable(said, metadata={"address": address, "remedy": remedy})


def _shortly(details: str) -> str:
    """The system's word for it, where gRPC's long text has one."""
    return next((word for word in map(os.strerror, _SYSTEMS) if word in details), details)


def _remedy(address: str, details: str) -> str:
    if address.startswith("unix:"):
        if os.strerror(errno.EACCES) in details:
            user = f"this user ({os.geteuid()})"
            return f"{user} may not open it: run as the broker's user, or as an agent in the group of the socket's directory"
        return "is one running, and is its socket mounted here?"
    if "verif" in details.lower():  # CERTIFICATE_VERIFY_FAILED, Hostname Verification Check failed
        return "its certificate is not trusted. Does ca_file hold the authority that signed it, and does it name this host?"
    return "is one running there, may this pod reach it, and does it want a client certificate?"


def _profile(message: pb.ProfileStatus) -> Profile:
    return Profile(
        id=message.id,
        provider=message.provider,
        mode=message.mode,
        source=message.source,
        state=message.state,
        reason=message.reason,
        next=message.next,
        usable=message.usable,
        pinned=message.pinned,
        label=message.label,
        expires_at=_optional(message, "expires_at"),
        cooldown_until=_optional(message, "cooldown_until"),
        disabled_until=_optional(message, "disabled_until"),
        disabled_reason=message.disabled_reason,
        last_used_at=_optional(message, "last_used_at"),
        retry_at=_optional(message, "retry_at"),
        model_cooldowns={model: _instant(until) for model, until in message.model_cooldowns.items()},
        base_url=message.base_url,
        version=message.version,
    )


def _instant(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _optional(message: pb.Lease | pb.ProfileStatus, field: str) -> datetime | None:
    return _instant(getattr(message, field)) if message.HasField(field) else None  # type: ignore[arg-type]


def _duration(span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    duration = Duration()
    duration.FromTimedelta(span)
    return duration


def _changed(message: pb.ReportOutcomeResponse) -> bool:
    return message.changed


def _revoked(message: pb.RevokeLeaseResponse) -> bool:
    return message.revoked


def _nothing(message: object) -> None:
    """For answers that say nothing."""
