"""HTTP/2 by hand (RFC 9113), for what no client library does: frames that are never finished, acknowledged or read."""

import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Final, Self

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
PUSH_PROMISE: Final = 5
END_STREAM, ACK, END_HEADERS = 1, 1, 4

Address = tuple[str, int] | str


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame, whatever its payload."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A header that no table has (RFC 7541, 6.2.2)."""
    return b"\0" + _text(name) + _text(value)


def call(path: str, *more: bytes) -> bytes:
    """The headers of a gRPC call, and more of them."""
    usual = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
    )
    return b"".join(field(name.encode(), value.encode()) for name, value in (*usual, ("te", "trailers"))) + b"".join(more)


def message(size: int, *, sent: int | None = None) -> bytes:
    """A gRPC message of so many bytes, or the first of them."""
    return struct.pack(">BI", 0, size) + b"x" * (size if sent is None else sent)


class Http2:
    """A connection that speaks as a test says. It is not over because a write fails: then the server has ended it."""

    def __init__(self, address: Address, *, tls: bool = False, source: str = "") -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, source_address=(source, 0) if source else None)
        self.socket.settimeout(10)
        if tls:
            trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            trusting.set_alpn_protocols(["h2"])
            self.socket = trusting.wrap_socket(self.socket)
        self.ended = False
        self._next = 1
        self.send(PREFACE + frame(SETTINGS, 0, 0))

    def send(self, data: bytes, *, within: float = 10.0) -> None:
        """Sends it; what is not taken within that time is not sent, and the connection is of no more use."""
        if self.ended:
            return
        try:
            self.socket.settimeout(within)
            self.socket.sendall(data)
        except OSError:
            self.ended = True

    def open(self, path: str, *more: bytes, flags: int = END_HEADERS) -> int:
        """Begins a call; returns its stream."""
        stream, self._next = self._next, self._next + 2
        self.send(frame(HEADERS, flags, stream, call(path, *more)))
        return stream

    def answers(self, *, within: float = 10.0) -> Iterator[tuple[int, int, int, bytes]]:
        """Frames (kind, flags, stream, payload) until none comes for so long, or the server ends the connection."""
        self.socket.settimeout(within)
        read = self.socket.makefile("rb")
        try:
            while len(head := read.read(9)) == 9:
                size, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
                yield kind, flags, stream & 0x7FFFFFFF, read.read(size)
            self.ended = True
        except TimeoutError:
            return
        except OSError:
            self.ended = True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(text: bytes) -> bytes:
    """A string without Huffman's code; its length has a prefix of seven bits (RFC 7541, 5.1)."""
    rest = len(text) - 127
    if rest < 0:
        return bytes([len(text)]) + text
    length = bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + text
