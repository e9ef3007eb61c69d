"""What an agent asks for, and what it is given."""

from dataclasses import dataclass

from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What an agent asks for. `ttl` in seconds; empty texts mean "not said". `succeeds`: the lease whose token goes on;
    `holder`: a name for who asks, whose earlier token goes on as well; `client`: the program that the credential is for."""

    provider: str = ""
    profile: str = ""
    session: str = ""
    model: str = ""
    ttl: float | None = None
    delivery: str = ""
    succeeds: str = ""
    holder: str = ""
    client: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease with the material behind it. `offset` turns the lease's steady instants into wall-clock ones. `token` is what the
    holder of a brokered lease has of it; None once only its digest is known, and for a raw one. `notice` is what the holder
    should know of the credential, empty for nothing."""

    lease: Lease
    held: HeldProfile
    provider: Provider
    offset: float
    renewable: bool
    token: SecretValue | None = None
    notice: str = ""
