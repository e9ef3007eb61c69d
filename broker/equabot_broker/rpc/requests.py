"""Converts messages to the engine's requests. Raises InvalidArgument with the name of the field for anything that is not
valid."""

from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration

from equabot.broker.v1 import admin_pb2, broker_pb2
from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.masking import is_misplaced_key
from equabot_broker.engine.leases.messages import LeaseRequest

_NAME: Final = 256
_LONGEST: Final = 315_576_000_000
_OUTCOMES: Final = {
    broker_pb2.OK: Outcome.OK,
    broker_pb2.AUTH: Outcome.AUTH,
    broker_pb2.RATE_LIMIT: Outcome.RATE_LIMIT,
    broker_pb2.BILLING: Outcome.BILLING,
    broker_pb2.TIMEOUT: Outcome.TIMEOUT,
    broker_pb2.FORMAT: Outcome.FORMAT,
}


def acquire(message: broker_pb2.AcquireLeaseRequest) -> LeaseRequest:
    """The request for a lease."""
    return LeaseRequest(
        provider=text(message.provider, "provider"),
        profile=text(message.profile, "profile"),
        session=text(message.session, "session"),
        model=text(message.model, "model"),
        ttl=_seconds(message.ttl, "ttl") if message.HasField("ttl") else None,
        delivery=text(message.delivery, "delivery"),
        succeeds=text(message.succeeds, "succeeds"),
        client=text(message.client, "client"),
        holder=text(message.holder, "holder"),
    )


def renew(message: broker_pb2.RenewLeaseRequest) -> tuple[str, float | None]:
    """The lease's id, and the requested lifetime in seconds."""
    return required(message.lease_id, "lease_id"), _seconds(message.ttl, "ttl") if message.HasField("ttl") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """The outcome of a request; arguments as in `LeaseService.report`."""

    outcome: Outcome
    retry_after: float | None
    version: int
    model: str
    elapsed: float | None
    sure: bool


def outcome(message: broker_pb2.ReportOutcomeRequest) -> Reported:
    """The reported outcome. Raises InvalidArgument."""
    known = _OUTCOMES.get(message.outcome)
    if known is None:
        names = ", ".join(broker_pb2.Outcome.Name(number) for number in _OUTCOMES)
        raise InvalidArgument(f"outcome {int(message.outcome)} is not known: use {names}")
    if message.version < 0:
        raise InvalidArgument(f"version {message.version} is not valid for a lease: use the version of the lease")
    return Reported(
        outcome=known,
        retry_after=_passed(message, "retry_after"),
        version=message.version,
        model=text(message.model, "model"),
        elapsed=_passed(message, "elapsed"),
        sure=not message.about_request,
    )


def _passed(message: broker_pb2.ReportOutcomeRequest, field: str) -> float | None:
    if not message.HasField(field):  # type: ignore[arg-type]
        return None
    seconds = _seconds(getattr(message, field), field)
    if seconds < 0:
        raise InvalidArgument(f"{field} must not be negative, but is {seconds:g} s")
    return seconds


def order(message: admin_pb2.SetOrderRequest) -> list[str]:
    """The profiles to store, at least one."""
    if not message.profiles:
        raise InvalidArgument("name at least one profile; to remove the order, call ClearOrder")
    return [required(profile, "profiles") for profile in message.profiles]


def text(value: str, field: str) -> str:
    """The text, if it is a valid name: short, printable, and not a key, because names are logged, listed and stored. May be
    empty."""
    if len(value) > _NAME:
        raise InvalidArgument(f"{field} is longer than {_NAME} characters")
    if not value.isprintable():
        raise InvalidArgument(f"{field} has characters that cannot be printed")
    if is_misplaced_key(value):
        raise InvalidArgument(f"{field} looks like a key: send a name")
    return value


def remark(value: str, field: str) -> str:
    """The text, if it is a short printable sentence without a key. May be empty."""
    for word in text(value, field).split():
        text(word, field)
    return value.strip()


def required(value: str, field: str) -> str:
    """The text, which must not be empty."""
    if not value:
        raise InvalidArgument(f"{field} is missing")
    return text(value, field)


def page(message: admin_pb2.ListLeasesRequest, *, largest: int) -> tuple[int, tuple[float, str]]:
    """The number of leases to send, and the position after which to begin: the time of issue (steady seconds) and the id."""
    if message.page_size < 0:
        raise InvalidArgument(f"page_size must not be negative, but is {message.page_size}")
    size = min(message.page_size or largest, largest)
    if not message.page_token:
        return size, (float("-inf"), "")
    issued, _, lease_id = text(message.page_token, "page_token").partition("/")
    try:
        return size, (float.fromhex(issued), lease_id)
    except (ValueError, OverflowError):
        raise InvalidArgument("page_token is not valid: use one of a previous answer") from None


def page_token(issued_at: float, lease_id: str) -> str:
    """The token that `page` reads."""
    return f"{issued_at.hex()}/{lease_id}"


def _seconds(span: Duration, field: str) -> float:
    """The limit is ten thousand years in either direction. Seconds and nanos must have the same sign, as the format
    demands."""
    seconds, nanos = span.seconds, span.nanos
    if abs(seconds) > _LONGEST or abs(nanos) > 999_999_999 or (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise InvalidArgument(f"{field} is not a valid duration")
    return seconds + nanos / 1e9
