"""Checks what a client sends to gRPC: HTTP/2 with complete and small header blocks (RFC 9113, 4.3; ADR 20).

gRPC keeps the fields of an incomplete header block, up to 16 MiB on each connection and several times that in memory, whatever
its limit is: it checks the limit when the block is complete. So a block is held back until it is complete, and a block that is
too large ends the connection. All other frames pass unchanged.
"""

import struct
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD: Final = struct.Struct(">HBBB4x")
_LARGEST: Final = 16_384
_HEADERS: Final = 1
_PUSH_PROMISE: Final = 5
_CONTINUATION: Final = 9
_END_HEADERS: Final = 4
_WAITS: Final = -1


class MalformedFrame(Exception):
    """The client sent a forbidden frame; its connection must end."""


class HeaderGate:
    """The data of one client, in chunks as they arrive. `largest` is the maximum number of bytes of a header block with its
    frame heads. `blocks` is the number of blocks that may pass until `allow` permits more; None: no limit. The rest is held
    back, and the client should send no more."""

    def __init__(self, *, largest: int, blocks: int | None = None) -> None:
        self._largest = largest
        self._blocks = blocks
        self._held = b""
        self._begun = False
        self._passing = 0
        """The position where the next chunk is parsed; in an incomplete block, its beginning."""
        self._in_block = False

    @property
    def waits(self) -> bool:
        """Whether a block is held back until more are permitted."""
        return self._blocks == _WAITS

    def allow(self, blocks: int | None) -> bytes:
        """Permits more blocks; None: no limit. Returns the data that was held back. Raises MalformedFrame."""
        self._blocks = None if blocks is None or self._blocks is None else max(self._blocks, 0) + blocks
        return self.pass_on(b"")

    def pass_on(self, data: bytes) -> bytes:
        """Adds a chunk and returns the data that may pass. Raises MalformedFrame."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not self._begun:
            if data[: len(_PREFACE)] != _PREFACE[: len(data)]:
                raise MalformedFrame
            if len(data) < len(_PREFACE):
                self._held = data
                return b""
            self._begun = True
            self._passing = len(_PREFACE)
        whole = self._whole(data)
        if whole == len(data):
            return data
        self._held = data[whole:]
        if len(self._held) > self._largest and not self.waits:
            raise MalformedFrame
        return data[:whole]

    def _whole(self, data: bytes) -> int:
        """The position up to which data may pass. It may be within a frame that has no fields."""
        size = len(data)
        at = self._passing
        block = 0 if self._in_block else -1
        while at + 9 <= size:
            upper, lower, kind, flags = _HEAD.unpack_from(data, at)
            end = at + 9 + (upper << 8 | lower)
            if end - at - 9 > _LARGEST or kind == _PUSH_PROMISE or (kind == _CONTINUATION) != (block >= 0):
                raise MalformedFrame
            if kind in (_HEADERS, _CONTINUATION):
                block = at if block < 0 else block
                if self._blocks is not None and self._blocks <= 0:
                    self._blocks = _WAITS
                    break
                if end - block > self._largest:
                    raise MalformedFrame
                if end > size:
                    break
                if flags & _END_HEADERS:
                    block = -1
                    if self._blocks is not None:
                        self._blocks -= 1
            at = end
        self._in_block = at > block >= 0
        self._passing = at - block if block >= 0 else max(at - size, 0)
        return block if block >= 0 else min(at, size)
