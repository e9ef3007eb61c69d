"""Asking a broker's health (`grpc.health.v1`): over its health port or any of its sockets."""

import os
import re
from typing import Final

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from equabot_client import _convert
from equabot_client._address import resolve

_METHOD: Final = "/grpc.health.v1.Health/Check"
_SERVING: Final = 1
_TCP: Final = re.compile(r"[A-Za-z0-9.:\[\]_-]+:[0-9]+")


def check(service: str = "", *, address: str | None = None, timeout: float = 5.0) -> bool | None:
    """Whether a service serves: `""` or `readiness`, `liveness`, `provider/<provider>`, `profile/<profile id>`.
    None for a name that the broker does not know.

    `address`: `host:port` (health is no secret: any host will do), `unix:/path/broker.sock` or a path; default that of
    `connect`.
    Raises EquabotError, by reason, and ValueError for what cannot be an address.
    """
    target = address if address and _TCP.fullmatch(address) else resolve(address, agent="main", environ=os.environ)
    # A HealthCheckRequest is one string and its answer one number, both field 1, as in these well-known types: the client
    # would otherwise depend on grpcio-health-checking for the two.
    with grpc.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),)) as channel:
        call = channel.unary_unary(
            _METHOD, request_serializer=StringValue.SerializeToString, response_deserializer=Int32Value.FromString
        )
        try:
            return bool(call(StringValue(value=service), timeout=timeout).value == _SERVING)
        except grpc.RpcError as raised:
            if raised.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise _convert.error(raised, target) from None
