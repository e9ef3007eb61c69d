"""A WebSocket's client, as far as short texts go (RFC 6455)."""

import base64
import hashlib
import os
import socket
from typing import Self


class WebSocket:
    """One connection, open once it is entered. Raises ConnectionError where the answer is another than an upgrade."""

    def __init__(self, port: int, path: str, **headers: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._stream = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"host: 127.0.0.1:{port}", "connection: Upgrade", "upgrade: websocket"]
        lines += ["sec-websocket-version: 13", f"sec-websocket-key: {key}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            self._expect(key)
        except BaseException:
            self.close()
            raise

    def _expect(self, key: str) -> None:
        status = self._stream.readline()
        if b" 101 " not in status:
            raise ConnectionError(status.decode().strip())
        told = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode().partition(":")
            told[name.lower()] = value.strip()
        wanted = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        assert told["sec-websocket-accept"] == base64.b64encode(wanted).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Breaks it off."""
        self._stream.close()
        self._socket.close()

    def echo(self, text: bytes) -> bytes:
        """What comes back for a text."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        self._socket.sendall(bytes([0x81, 0x80 | len(text)]) + mask + masked)
        head = self._stream.read(2)
        return self._stream.read(head[1])

    def closed(self) -> bool:
        """Waits for the other side to end it, and returns True where it says nothing before that."""
        try:
            return self._stream.read(1) == b""
        except ConnectionError:
            return True
