"""What an agent asks for, and what it is given."""

from dataclasses import dataclass

from broker.domain.leases import Lease
from broker.domain.material import Held
from broker.domain.provider import Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an agent asks for. `ttl` in seconds; empty texts mean "not said"."""

    provider: str = ""
    profile: str = ""
    session: str = ""
    model: str = ""
    ttl: float | None = None
    delivery: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease with the material behind it. `offset` turns the lease's steady instants into wall-clock ones."""

    lease: Lease
    held: Held
    provider: Provider
    offset: float
    renewable: bool
