"""How the gateway is run, and what stands between it and the vendors."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

LEAST_MEMORY: Final = 128 << 20
"""Bytes with which Envoy still has room for requests."""


class GatewayMode(StrEnum):
    """Who runs Envoy: nobody, the broker as its child, or somebody else beside the broker, with the configuration it wrote."""

    OFF = "off"
    CHILD = "child"
    SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """`url` is what agents are told, empty for the address that the gateway listens on; `envoy` the program of a child;
    `ca_file` the certificates that vendors are verified with; `idle_timeout` the seconds for which nothing may come of a
    request, in either direction; `scrub` whether answers are searched for the secret that was sent. Envoy's memory stays below
    `memory` bytes, and agents have at most `max_connections` connections to it."""

    mode: GatewayMode = GatewayMode.OFF
    url: str = ""
    envoy: str = "envoy"
    ca_file: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    idle_timeout: float = 600.0
    scrub: bool = False
    memory: int = 256 << 20
    max_connections: int = 8192
