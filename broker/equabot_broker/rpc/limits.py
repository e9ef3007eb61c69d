"""What one listener holds for its callers at most, and how gRPC is made to hold no more (ADR 20).

gRPC itself bounds bytes: those of a message, of a stream that no one reads, of headers; and streams and connections. It does
not tell callers apart, and its one bound on calls counts probes with all others: `admission` and `relay` do that.
"""

from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.connections import ConnectionTable

_FRAME: Final = 16_384
"""Bytes of an HTTP/2 frame: the least that the protocol allows as a limit."""
_WATCHES: Final = 32
_MOST_STREAMS: Final = 8192
"""Streams that one connection opens at once, however many leases a policy allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLimits:
    """What one peer of a TCP listener may have of it."""

    unread: int
    watches: int
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one listener.

    `message` and `metadata` are bytes that a call may send, `streams` the calls at once on one connection, `pending` the calls
    that the event loop has not taken yet, `unread` those whose message has not come, `watches` the streams of health and
    reflection, `calls` other calls under way, `leases` their streams. A call of health has no bound but `unread`, in which the
    oldest makes room: so a probe is always answered. `idle`: seconds after which a connection without a call ends.
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
        """For the server of this listener."""
        return (
            ("grpc.max_receive_message_length", self.message),
            ("grpc.http2.lookahead_bytes", max(self.message + 5, 2048)),  # a stream's window; by itself it is 4 MiB
            ("grpc.http2.max_frame_size", _FRAME),  # by itself 4 MiB as well
            ("grpc.experimental.tcp_max_read_chunk_size", 4 * _FRAME),
            ("grpc.experimental.tcp_read_chunk_size", 4096),
            ("grpc.experimental.tcp_max_read_chunk_size", 8192),
            ("grpc.max_metadata_size", self.metadata),
            ("grpc.absolute_max_metadata_size", self.metadata),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_connection_idle_ms", int(self.idle * 1000)),
            ("grpc.server_handshake_timeout_ms", 5_000),  # who connects and says nothing
            ("grpc.http2.settings_timeout", 5_000),
            ("grpc.server.max_pending_requests", self.pending),  # beyond them it ends the newest, also a probe
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
"""Envoy's: what it asks holds a request's headers, and it asks for each request at once."""


def agent(leases: int) -> Limits:
    """Of a socket whose agent may have so many leases, each with a stream."""
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
    """Over TCP, for agents that may have so many leases together."""
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
    """How many connections a TCP port has at once. gRPC behind it takes 64 more, as one that ends is there a little longer."""

    most: int
    most_per_peer: int

    def table(self) -> ConnectionTable:
        """None yet."""
        return ConnectionTable(most=self.most, most_per_peer=self.most_per_peer)


PROCESSES: Final = Connections(256, 256)
"""Of one agent, on its socket."""
PROBERS: Final = Connections(64, 16)
"""On the port for health."""
STRANGERS: Final = Connections(128, 16)
"""Over TLS, until a call has identified its caller."""
AGENTS: Final = Connections(1024, 64)
"""Over TLS, from then on."""
