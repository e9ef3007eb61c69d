"""`google.rpc.Status` and the details in it, read without `googleapis-common-protos`.

The messages are described here, in a descriptor pool of their own, so that they can never collide with the real ones.
Only what the client reads is described; protobuf skips the rest. Source: google/rpc/status.proto, error_details.proto.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

TRAILER: Final = "grpc-status-details-bin"
_PACKAGE: Final = "equabot_client.wire"
# message: {field: (number, scalar type, or name of a message, repeated)}
_MESSAGES: Final[dict[str, dict[str, tuple[int, Field.Type.ValueType | str, bool]]]] = {
    "Status": {"details": (3, "Any", True)},
    "Any": {"type_url": (1, Field.TYPE_STRING, False), "value": (2, Field.TYPE_BYTES, False)},
    "ErrorInfo": {
        "reason": (1, Field.TYPE_STRING, False),
        "domain": (2, Field.TYPE_STRING, False),
        "metadata": (3, "Entry", True),  # a map is on the wire what a list of entries is
    },
    "Entry": {"key": (1, Field.TYPE_STRING, False), "value": (2, Field.TYPE_STRING, False)},
    "RetryInfo": {"retry_delay": (1, "Duration", False)},
    "Duration": {"seconds": (1, Field.TYPE_INT64, False), "nanos": (2, Field.TYPE_INT32, False)},
}


def _classes() -> dict[str, Any]:
    file = FileDescriptorProto(name="equabot_client/wire.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            added = message.field.add(name=field, number=number)
            added.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                added.type, added.type_name = Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
            else:
                added.type = kind
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


_CLASSES: Final = _classes()


def error_info(trailer: bytes, *, domain: str) -> tuple[str, dict[str, str], float | None]:
    """The reason, the metadata and the seconds to wait that a status carries: ("", {}, None) where it carries none, is of
    another domain, or cannot be read."""
    reason, metadata, wait = "", dict[str, str](), None
    try:
        for detail in _CLASSES["Status"].FromString(trailer).details:
            if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                info = _CLASSES["ErrorInfo"].FromString(detail.value)
                if info.domain == domain:
                    reason, metadata = info.reason, {entry.key: entry.value for entry in info.metadata}
            elif detail.type_url.endswith("/google.rpc.RetryInfo"):
                delay = _CLASSES["RetryInfo"].FromString(detail.value).retry_delay
                wait = delay.seconds + delay.nanos / 1e9
    except DecodeError:
        return "", {}, None
    return reason, metadata, wait if reason else None
