"""The requests that the metrics server answers: the head of an HTTP request (RFC 9112), read or refused."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs

PATHS: Final = ("/metrics", "/healthz", "/readyz", "/status.json")
LARGEST: Final = 8192
"""Bytes of a request head; Prometheus sends about 300."""

_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,2048}) HTTP/1\.([01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\0\r\n]*?)[ \t]*")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_CLUSTER: Final = (".svc", ".cluster.local", ".internal", ".localhost")
"""Ends of names that the public DNS does not have."""


class ScrapeRefused(Exception):
    """A request that is not answered: the status line's status, and one line for the scraper."""

    def __init__(self, status: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """A request: its path, the health service that its query names, what it accepts, and whether it wants the body (HEAD does
    not)."""

    path: str
    service: str = ""
    accept: str
    accept_encoding: str
    body: bool


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: the status line's status, header lines, and the body."""

    status: str
    headers: tuple[str, ...]
    body: bytes


def read_request(head: bytes, *, names: Collection[str]) -> Scrape:
    """The request in a head without its empty line. `names` are the hosts that are ours. Raises ScrapeRefused."""
    if len(head) > LARGEST:
        raise ScrapeRefused("431 Request Header Fields Too Large", f"a request has at most {LARGEST} bytes")
    line, *fields = head.split(b"\r\n")
    asked = _LINE.fullmatch(line)
    headers = _headers(fields)
    if asked is None or headers is None:
        raise ScrapeRefused("400 Bad Request", "this is not an HTTP/1.1 request")
    method, target, minor = (part.decode("ascii") for part in asked.groups())
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise ScrapeRefused("400 Bad Request", "a request has no body here")
    if "host" in headers or minor == "1":
        _check_host(headers.get("host", ""), names)
    path, _, query = target.partition("?")
    if path not in PATHS:
        raise ScrapeRefused("404 Not Found", f"this server has {', '.join(PATHS)}")
    if method not in ("GET", "HEAD"):
        raise ScrapeRefused("405 Method Not Allowed", "use GET or HEAD")
    return Scrape(
        path=path,
        service=parse_qs(query).get("service", [""])[-1],
        accept=headers.get("accept", ""),
        accept_encoding=headers.get("accept-encoding", ""),
        body=method == "GET",
    )


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


def _check_host(host: str, names: Collection[str]) -> None:
    """Raises Refused for a name that the public DNS may have: a page of that name would read the metrics through a browser that
    is here (DNS rebinding). An address, and a name of the machine or of a cluster, is not such a name."""
    found = _HOST.fullmatch(host.lower())
    name = found[1].strip("[]").rstrip(".") if found else ""
    if not name or not (_is_address(name) or "." not in name or name.endswith(_CLUSTER) or name in names):
        raise ScrapeRefused(
            "421 Misdirected Request", "the metrics do not answer to that host: scrape the address, or NAME.NAMESPACE.svc"
        )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
