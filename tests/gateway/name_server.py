"""A name server on loopback that has one answer for every name (RFC 1035)."""

import ipaddress
import socket
import struct
import threading
from typing import Self

_A, _AAAA = 1, 28


class NameServer:
    """Says that every name is at `address`; of the other family there is none."""

    def __init__(self, address: str) -> None:
        self.address = ipaddress.ip_address(address)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while (received := self._socket.recvfrom(512))[0]:
            self._socket.sendto(self._answer(received[0]), received[1])

    def _answer(self, asked: bytes) -> bytes:
        end = asked.index(b"\0", 12) + 5
        kind = int.from_bytes(asked[end - 4 : end - 2])
        found = kind == (_A if self.address.version == 4 else _AAAA)
        packed = self.address.packed
        record = b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(packed)) + packed if found else b""
        return asked[:2] + struct.pack("!HHHHH", 0x8180, 1, int(found), 0, 0) + asked[12:end] + record
