import traceback
from datetime import UTC, datetime

import pytest

from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import EventKind, _convert, errors

CANARY = "sk-ant-api03-canary"


def _lease() -> pb.Lease:
    message = pb.Lease(id="L", secret=CANARY, headers={"x-api-key": CANARY}, env={"ANTHROPIC_API_KEY": CANARY})
    message.expires_at.FromDatetime(datetime(2027, 1, 1, tzinfo=UTC))
    return message


def test_a_lease_without_its_optional_instants_reads_none() -> None:
    """Absent is not the year 1970."""
    message = _lease()
    assert _convert.lease(message).credential_expires_at is None
    message.credential_expires_at.FromDatetime(datetime(2028, 1, 1, tzinfo=UTC))
    assert _convert.lease(message).credential_expires_at == datetime(2028, 1, 1, tzinfo=UTC)


def test_a_lease_that_cannot_be_read_is_an_error_that_does_not_show_it() -> None:
    """A protobuf message prints its secrets: no frame of ours may keep one when it raises."""
    message = _lease()
    message.issued_at.seconds = 2**60
    with pytest.raises(errors.Unexpected, match="instant") as raised:
        _convert.event(pb.LeaseEvent(kind=pb.LeaseEvent.GRANTED, lease=message))
    told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    ours = [frame for frame in told.stack if "equabot_client" in frame.filename]
    assert len(ours) == 2
    assert CANARY not in str([frame.locals for frame in ours])


def test_an_event_of_a_newer_broker_is_unknown_and_no_error() -> None:
    """What it says of the lease still counts."""
    message = pb.LeaseEvent(lease=_lease(), lease_id="L")
    message.kind = 99  # type: ignore[assignment]
    event = _convert.event(message)
    assert (event.kind, event.lease_id) == (EventKind.UNKNOWN, "L")
    assert event.lease is not None


def test_a_question_does_not_print_what_it_asks() -> None:
    """A session's name is nobody else's business."""
    assert "s-1" not in repr(_convert.pin("s-1", "anthropic", "work", strict=False))
