"""Leases: bounded rights to credentials. Instants here are *steady* seconds, which no change of the wall clock moves."""

from dataclasses import dataclass, field, replace
from typing import Final

from equabot_broker.domain.errors import InvalidArgument, LeaseExpired
from equabot_broker.domain.policies import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseOptions:
    """Durations in seconds."""

    default_ttl: float = 900.0
    max_ttl: float = 3600.0


@dataclass(frozen=True, slots=True)
class Lease:
    """One grant. `automatic` tells whether the broker chose the profile, so that another may take over; `asked` is the time to
    live first asked for, which renewals keep to; `streaming` whether a stream holds it: then it ends with that stream.
    `token` is the digest of what the holder of a brokered lease shows to the gateway; empty for a raw one. `model` is the one
    that its requests are for, where its holder said so; `holder` a name for who holds it, within the agent, which no store
    keeps; `client` the program that it was chosen for, empty where that is not known.
    """

    id: str
    agent: str
    session: str
    provider: str
    profile: str
    automatic: bool
    delivery: Delivery
    asked: float
    issued_at: float
    expires_at: float
    max_expires_at: float
    streaming: bool = False
    token: bytes = field(default=b"", repr=False)
    model: str = ""
    holder: str = ""
    client: str = ""

    @property
    def brokered(self) -> bool:
        """Whether its holder has a token, and never what is behind it."""
        return self.delivery is Delivery.BROKERED

    @property
    def moves(self) -> bool:
        """Whether it goes over to another credential when its own ends, so that it does not end with that."""
        return self.streaming or self.brokered

    def renewable(self) -> bool:
        """Whether a renewal would still extend it."""
        return self.expires_at < self.max_expires_at


_RENEW_AT: Final = 2 / 3


def renewal_due(lease: Lease, *, credential_left: float | None, now: float) -> float:
    """When to renew it: at two thirds of what is left of the lease, or of its credential, whichever is less."""
    life = lease.expires_at - now if credential_left is None else min(lease.expires_at - now, credential_left)
    return now + life * _RENEW_AT


def check_ttl(ttl: float | None, *, default: float) -> float:
    """The time to live asked for, in seconds. Raises InvalidArgument for zero and negative ones."""
    if ttl is None:
        return default
    if not ttl > 0:
        raise InvalidArgument(f"ttl must be longer than zero, not {ttl:g} s")
    return ttl


def grant(
    lease_id: str,
    *,
    agent: str,
    session: str,
    provider: str,
    profile: str,
    automatic: bool,
    delivery: Delivery,
    ttl: float,
    max_ttl: float,
    credential_left: float | None,
    now: float,
    streaming: bool,
    token: bytes = b"",
    model: str = "",
    holder: str = "",
    client: str = "",
) -> Lease:
    """A new lease: as long as the least of what was asked, what policy allows and what is left of the credential.

    `now` is steady; `credential_left` is in seconds, None for a credential that does not say when it ends.
    """
    life = min(ttl, max_ttl) if credential_left is None else min(ttl, max_ttl, max(credential_left, 0.0))
    return Lease(
        lease_id, agent, session, provider, profile, automatic, delivery, ttl, now, now + life, now + max_ttl, streaming, token,
        model, holder, client,
    )  # fmt: skip


def shortened(lease: Lease, max_ttl: float) -> Lease:
    """The lease, with an end at most so many seconds after it was issued; the same one where it ends by then."""
    latest = lease.issued_at + max_ttl
    if lease.max_expires_at <= latest:
        return lease
    return replace(lease, max_expires_at=latest, expires_at=min(lease.expires_at, latest))


def renew(lease: Lease, *, ttl: float | None, credential_left: float | None, now: float) -> Lease:
    """The lease, living `ttl` (or as long as first asked) from now, never past its maximum or its credential's end.

    Raises LeaseExpired, InvalidArgument.
    """
    asked = check_ttl(ttl, default=lease.asked)
    if lease.expires_at <= now:
        raise LeaseExpired(f"lease expired {now - lease.expires_at:.0f} s ago: acquire another")
    until = min(now + asked, lease.max_expires_at)
    if credential_left is not None:
        until = min(until, now + credential_left)
    return replace(lease, expires_at=until)
