"""Reads the requests that the metrics server answers, and refuses others."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import parse_qs

from equabot_broker.parsing.request_heads import HeadRefused, read_head

PATHS: Final = ("/metrics", "/healthz", "/readyz", "/status.json")

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_CLUSTER: Final = (".svc", ".cluster.local", ".internal", ".localhost")
"""Suffixes of names that do not exist in the public DNS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """A request. `service` is the health service in its query. `body` is false for HEAD."""

    path: str
    service: str = ""
    accept: str
    accept_encoding: str
    body: bool


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. `status` is the code and the reason phrase; `headers` are complete lines."""

    status: str
    headers: tuple[str, ...]
    body: bytes


def read_request(head: bytes, *, names: Collection[str]) -> Scrape:
    """The request in a head, which has no empty line at its end. `names` are this host's own names. Raises HeadRefused."""
    asked = read_head(head)
    if "host" in asked.headers or asked.minor:
        _check_host(asked.headers.get("host", ""), names)
    if asked.path not in PATHS:
        raise HeadRefused("404 Not Found", f"unknown path: use {', '.join(PATHS)}")
    if asked.method not in ("GET", "HEAD"):
        raise HeadRefused("405 Method Not Allowed", "use GET or HEAD")
    return Scrape(
        path=asked.path,
        service=parse_qs(asked.query).get("service", [""])[-1],
        accept=asked.headers.get("accept", ""),
        accept_encoding=asked.headers.get("accept-encoding", ""),
        body=asked.method == "GET",
    )


def _check_host(host: str, names: Collection[str]) -> None:
    """Raises HeadRefused for a name that can exist in the public DNS. A web page of that name could otherwise read the metrics
    through a browser on this host (DNS rebinding). Addresses and names of this host or of a cluster pass."""
    found = _HOST.fullmatch(host.lower())
    name = found[1].strip("[]").rstrip(".") if found else ""
    if not name or not (_is_address(name) or "." not in name or name.endswith(_CLUSTER) or name in names):
        raise HeadRefused(
            "421 Misdirected Request", "the metrics do not answer to that host name: scrape the address, or NAME.NAMESPACE.svc"
        )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
