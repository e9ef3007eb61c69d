"""What happens at the gateway, as typed events."""

from dataclasses import dataclass
from typing import ClassVar

from equabot_broker.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretPushed(Event):
    """A credential goes to an Envoy that asked for the resource by name (secret discovery)."""

    granting: ClassVar[bool] = True

    resource: str
    provider: str
    profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayAuthorized(Event):
    """A request is let through the gateway: its credential goes to Envoy after this. `request` is a name for it, which its end
    (`GatewayUsed`) has too. `route` is the path without its query, and without what makes it one of its kind."""

    granting: ClassVar[bool] = True

    agent: str
    session: str
    provider: str
    profile: str
    lease: str
    request: str
    method: str
    route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayUsed(Event):
    """A request that was let through the gateway has ended: `status` as in HTTP (0: no answer came), `sent` and `received` the
    bytes of its body and of the answer's, `seconds` from its first byte to the answer's last. `request`, `method` and `route`
    as in `GatewayAuthorized`."""

    agent: str
    session: str
    provider: str
    profile: str
    lease: str
    request: str
    method: str
    route: str
    status: int
    sent: int
    received: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayRefused(Event):
    """The gateway let a request not pass: `reason` in a word. `agent` and `lease` are empty where its token told nothing."""

    summed: ClassVar[bool] = True

    agent: str
    provider: str
    lease: str
    method: str
    route: str
    status: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLogSkipped(Event):
    """What the gateway told of an answer made no sense."""
