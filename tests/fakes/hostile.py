"""Clients that misbehave: just enough HTTP/2 to open a stream and never to read it, and bytes that are no HTTP/2 at all."""

import socket
import struct
from pathlib import Path
from typing import Final, Self

from equabot.broker.v1 import broker_pb2

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS = 1, 4
_INITIAL_WINDOW_SIZE = 4

GARBAGE: Final = {
    "nothing": b"",
    "zeros": bytes(4096),
    "HTTP/1": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1 without end": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc",
    "a very long line": b"GET /" + b"x" * 300_000 + b" HTTP/1.1\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(range(160)),
    "a preface alone": PREFACE,
    "half a preface": PREFACE[:9],
    "a frame longer than it says": PREFACE + b"\xff\xff\xff" + bytes([_DATA, 0]) + bytes(4) + b"x" * 1000,
    "headers that are none": PREFACE + b"\x00\x00\x10" + bytes([_HEADERS, _END_HEADERS]) + b"\x00\x00\x00\x01" + b"\xff" * 16,
    "an endless table": PREFACE + b"\x00\x00\x06" + bytes([_SETTINGS, 0]) + bytes(4) + b"\x00\x01\xff\xff\xff\xff",
    "pings": PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + (b"\x00\x00\x08" + bytes([_PING, 0]) + bytes(12)) * 1000,
    "a stream of number zero": PREFACE + b"\x00\x00\x01" + bytes([_DATA, _END_STREAM]) + bytes(4) + b"x",
}
"""What a port may be sent by somebody who means something else, or harm."""


class DeafClient:
    """Opens streams of leases on one connection, and leaves the other side no room to say anything on them."""

    def __init__(self, path: Path, *, streams: int, provider: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        no_room = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)
        request = broker_pb2.AcquireLeaseRequest(provider=provider).SerializeToString()
        message = b"\0" + struct.pack(">I", len(request)) + request
        said = PREFACE + _frame(_SETTINGS, 0, 0, no_room)
        for number in range(1, 2 * streams, 2):
            said += _frame(_HEADERS, _END_HEADERS, number, _HEADER_BLOCK) + _frame(_DATA, _END_STREAM, number, message)
        self._socket.sendall(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name: str, value: str) -> bytes:
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


_HEADER_BLOCK: Final = b"".join(
    _literal(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/equabot.broker.v1.Broker/StreamLease"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)
