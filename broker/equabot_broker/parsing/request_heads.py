"""The head of an HTTP/1.1 request (RFC 9112), read strictly: what has a second reading is refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LARGEST_HEAD: Final = 8192
"""Bytes of a request head; a browser sends about 700."""

_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")


class HeadRefused(Exception):
    """A request that is not answered: the status line's status, and one line for the caller."""

    def __init__(self, status: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """A request without a body. The names in `headers` are in lower case. `minor` is the 1 of HTTP/1.1."""

    method: str
    path: str
    query: str
    minor: int
    headers: Mapping[str, str]


def read_head(head: bytes) -> RequestHead:
    """The request in a head without its empty line. Raises HeadRefused, also for a request that has a body."""
    if len(head) > LARGEST_HEAD:
        raise HeadRefused("431 Request Header Fields Too Large", f"a request has at most {LARGEST_HEAD} bytes")
    line, *fields = head.split(b"\r\n")
    asked = _LINE.fullmatch(line)
    headers = _headers(fields)
    if asked is None or headers is None:
        raise HeadRefused("400 Bad Request", "this is not an HTTP/1.1 request")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise HeadRefused("400 Bad Request", "a request has no body here")
    method, target, minor = (part.decode("ascii") for part in asked.groups())
    path, _, query = target.partition("?")
    return RequestHead(method=method, path=path, query=query, minor=int(minor), headers=headers)


def _headers(fields: list[bytes]) -> dict[str, str] | None:
    """By name in lower case; None where one is malformed, or comes twice."""
    found: dict[str, str] = {}
    for field in fields:
        parts = _FIELD.fullmatch(field)
        name = parts[1].decode("ascii").lower() if parts else ""
        if parts is None or name in found:
            return None
        found[name] = parts[2].decode("latin-1")
    return found
