"""Options of the gateway: how Envoy runs, and how it reaches vendors."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

LEAST_MEMORY: Final = 128 << 20
"""The minimum of bytes with which Envoy has room for requests."""


class GatewayMode(StrEnum):
    """What runs Envoy: nothing, the broker as its child, or another program, with the configuration that the broker wrote."""

    OFF = "off"
    CHILD = "child"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """`url` is the address that agents get; empty for the gateway's own listener. `envoy` is the program of the child.
    `ca_file` has the certificates that verify vendors. `idle_timeout` is the number of seconds without data in either
    direction after which a request ends. `scrub` is whether answers are searched for the secret. `memory` is the limit of
    Envoy's memory in bytes. `max_connections` is the number of connections that all agents together may have."""

    mode: GatewayMode = GatewayMode.OFF
    url: str = ""
    envoy: str = "envoy"
    ca_file: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    idle_timeout: float = 600.0
    scrub: bool = False
    memory: int = 256 << 20
    max_connections: int = 8192
