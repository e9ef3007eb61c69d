import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import DebugInfo, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from equabot_client._status import error_info


def _status(*details: ErrorInfo | RetryInfo | DebugInfo) -> bytes:
    status = Status(code=9, message="no")
    for detail in details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


def test_what_googles_own_messages_say_is_read() -> None:
    """Reason, metadata and the wait, beside details that nobody asked for."""
    trailer = _status(
        DebugInfo(detail="x"),
        ErrorInfo(reason="NO_USABLE_PROFILE", domain="equabot.dev", metadata={"anthropic:env": "expired", "anthropic:b": ""}),
        RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
    )
    expected = ("NO_USABLE_PROFILE", {"anthropic:env": "expired", "anthropic:b": ""}, 2.5)
    assert error_info(trailer, domain="equabot.dev") == expected


@pytest.mark.parametrize(
    "trailer",
    [b"", b"\xff\xff\xff", _status(ErrorInfo(reason="QUOTA", domain="googleapis.com")), _status(DebugInfo(detail="x"))],
    ids=["absent", "garbage", "another domain", "no ErrorInfo"],
)
def test_a_status_that_is_not_the_brokers_says_nothing(trailer: bytes) -> None:
    """A stranger's reasons must not be taken for ours, and garbage must not break the error it came with."""
    assert error_info(trailer, domain="equabot.dev") == ("", {}, None)
