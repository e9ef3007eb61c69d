"""The limits of each listener, and the gRPC options that enforce them (ADR 20).

gRPC itself limits bytes (of a message, of an unread stream, of headers), streams and connections. It does not distinguish
callers, and counts probes with all other calls. `admission` and `relay` do that.
"""

from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.connections import ConnectionTable

_FRAME: Final = 16_384
"""Bytes of an HTTP/2 frame: the smallest limit that the protocol allows."""
_WATCHES: Final = 32
_MOST_STREAMS: Final = 8192
"""The maximum number of concurrent streams on one connection, whatever the policy allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLimits:
    """The share of a TCP listener that one peer may use."""

    unread: int
    watches: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one listener.

    `message` and `metadata` are bytes that a call may send. `streams` are concurrent calls on one connection. `pending` are
    calls that the event loop has not taken yet, and `unread` those without their message. `watches` are streams of health and
    reflection, `leases` are streams of leases, and `calls` are other active calls. A health check has no limit but `unread`,
    in which the oldest makes room, so a probe is always answered. `idle` is the number of seconds after which a connection
    without a call ends.
    """

    message: int
    metadata: int = 4096
    connections: int
    streams: int
    unread: int
    pending: int = 512
    watches: int = _WATCHES
    calls: int = 256
    leases: int = 0
    idle: float = 300.0
    peer: PeerLimits | None = None

    def options(self) -> tuple[tuple[str, int], ...]:
        """The gRPC options for this listener's server."""
        return (
            ("grpc.max_receive_message_length", self.message),
            ("grpc.http2.lookahead_bytes", max(self.message + 5, 2048)),  # the window of a stream; the default is 4 MiB
            ("grpc.http2.max_frame_size", _FRAME),  # the default is also 4 MiB
            ("grpc.experimental.tcp_max_read_chunk_size", 4 * _FRAME),
            ("grpc.experimental.tcp_read_chunk_size", 4096),
            ("grpc.experimental.tcp_max_read_chunk_size", 8192),
            ("grpc.max_metadata_size", self.metadata),
            ("grpc.absolute_max_metadata_size", self.metadata),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_connection_idle_ms", int(self.idle * 1000)),
            ("grpc.server_handshake_timeout_ms", 5_000),  # ends a connection on which nothing is sent
            ("grpc.http2.settings_timeout", 5_000),
            ("grpc.server.max_pending_requests", self.pending),  # beyond this, gRPC ends the newest connection, even a probe's
            ("grpc.server.max_pending_requests_hard_limit", self.pending),
        )


HEALTH: Final = Limits(
    message=1024,
    metadata=2048,
    connections=128,
    streams=24,
    unread=256,
    pending=1024,
    watches=128,
    calls=0,
    idle=30.0,
    peer=PeerLimits(unread=64, watches=16, calls=0),
)
ADMIN: Final = Limits(message=64 << 10, connections=64, streams=128, unread=256)
CONTROL: Final = Limits(
    message=1 << 20,
    metadata=16_384,
    connections=64,
    streams=2048,
    unread=2048,
    pending=2048,
    watches=0,
    calls=2048,
    leases=2048,
    idle=3600.0,
)
"""The limits of Envoy's socket: its checks have a request's headers, and each request needs one at once."""


def agent(leases: int) -> Limits:
    """The limits of the socket of an agent with this number of leases, each with a stream."""
    at_once = min(leases, _MOST_STREAMS)
    return Limits(
        message=_FRAME,
        connections=320,
        streams=at_once + 512,
        unread=at_once + 384,
        pending=at_once + 512,
        leases=leases + 16,
    )


def remote(leases: int) -> Limits:
    """The limits over TCP, for agents with this number of leases together."""
    return Limits(
        message=_FRAME,
        metadata=_FRAME,
        connections=1216,
        streams=256,
        unread=256,
        watches=128,
        leases=leases + 16,
        peer=PeerLimits(unread=64, watches=16, calls=128),
    )


@dataclass(frozen=True, slots=True)
class Connections:
    """The maximum number of connections of a TCP port. gRPC behind it takes 64 more, because it notices the end of a
    connection later."""

    most: int
    most_per_peer: int

    def table(self) -> ConnectionTable:
        """No bucket: the caller is not known."""
        return ConnectionTable(most=self.most, most_per_peer=self.most_per_peer)


PROCESSES: Final = Connections(256, 256)
"""The bucket of one agent, on its socket."""
PROBERS: Final = Connections(64, 16)
"""The bucket of the health port."""
STRANGERS: Final = Connections(128, 16)
"""The bucket of a TLS connection before a call has identified its caller."""
AGENTS: Final = Connections(1024, 64)
"""The bucket of a TLS connection with a known caller."""
