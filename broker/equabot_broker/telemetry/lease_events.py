"""What happens to leases, as typed events."""

from dataclasses import dataclass
from typing import ClassVar

from equabot_broker.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGranted(Event):
    """`seconds` is how long the lease lives unless it is renewed."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    delivery: str
    seconds: float
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed(Event):
    """A lease lives longer."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseMoved(Event):
    """A lease goes over to another profile, from `before`."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    before: str
    profile: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaterialDelivered(Event):
    """New material of a lease's profile goes to the stream that holds the lease."""

    granting: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRevoked(Event):
    """A lease ended: `reason` as on the wire."""

    agent: str
    provider: str
    profile: str
    reason: str
    session: str = ""
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseDenied(Event):
    """A request was refused: `reason` as in `BrokerError.reason`; `provider` is empty where none was named that is known. Of a
    request that makes no sense nothing more is told: anything may stand in it."""

    summed: ClassVar[bool] = True

    agent: str
    provider: str
    reason: str
    session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalDenied(Event):
    """A lease was not renewed: `reason` as in `BrokerError.reason`; `lease` as it was asked for, whosoever's it is."""

    summed: ClassVar[bool] = True

    agent: str
    lease: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcquireAnswered(Event):
    """A request for a lease was answered, granted or not, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReported(Event):
    """An agent (or the gateway) said how a provider answered: `outcome` as in `Outcome`."""

    summed: ClassVar[bool] = True

    agent: str
    provider: str
    profile: str
    outcome: str
    session: str = ""
    lease: str = ""
