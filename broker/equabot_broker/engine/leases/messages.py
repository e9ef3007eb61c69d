"""The request of an agent for a lease, and its answer."""

from dataclasses import dataclass

from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.provider import Provider
from equabot_broker.domain.secret_value import SecretValue


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A request for a lease. `ttl` is in seconds. Empty texts are not set.

    `succeeds`: the new lease keeps the token of this lease. `holder` names the requester within the agent; the new lease keeps
    the token of its earlier lease too. `client` is the client program that uses the credential.
    """

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
    """A lease with its material.

    `offset` converts steady instants of the lease to wall-clock time. `token` is the token of a brokered lease; it is None for
    a raw lease, and if this process knows only the digest. `notice` is information for the holder, or empty.
    """

    lease: Lease
    held: HeldProfile
    provider: Provider
    offset: float
    renewable: bool
    token: SecretValue | None = None
    notice: str = ""
