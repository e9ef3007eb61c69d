"""Leases: bounded rights to credentials. Instants in this module are seconds of the *steady* (monotonic) clock."""

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
    """One grant.

    `automatic`: the broker chose the profile and may replace it. `asked` is the requested time to live, which renewals use
    again. `streaming`: a stream holds the lease, which ends with that stream. `token` is the digest of the lease token, empty
    for a raw lease. `model` is the model that its holder named. `holder` names the holder within the agent and is not stored.
    `client` is the client program for which the profile was chosen, or empty.
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
        """Whether its holder has a lease token instead of the credential."""
        return self.delivery is Delivery.BROKERED

    @property
    def moves(self) -> bool:
        """Whether it moves to another credential when its own ends."""
        return self.streaming or self.brokered

    def renewable(self) -> bool:
        """Whether a renewal would still extend it."""
        return self.expires_at < self.max_expires_at


_RENEW_AT: Final = 2 / 3


def renewal_due(lease: Lease, *, credential_left: float | None, now: float) -> float:
    """The instant of renewal: after two thirds of the remaining time of the lease or its credential, the shorter one."""
    life = lease.expires_at - now if credential_left is None else min(lease.expires_at - now, credential_left)
    return now + life * _RENEW_AT


def check_ttl(ttl: float | None, *, default: float) -> float:
    """The requested time to live in seconds, or the default. Raises InvalidArgument for zero and less."""
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
    """A new lease. Its time to live is the shortest of the requested, the allowed and the credential's remaining time.

    `now` is steady. `credential_left` is in seconds, or None for a credential without a known end.
    """
    life = min(ttl, max_ttl) if credential_left is None else min(ttl, max_ttl, max(credential_left, 0.0))
    return Lease(
        lease_id, agent, session, provider, profile, automatic, delivery, ttl, now, now + life, now + max_ttl, streaming, token,
        model, holder, client,
    )  # fmt: skip


def shortened(lease: Lease, max_ttl: float) -> Lease:
    """The lease with an end at most `max_ttl` seconds after its issue; the same object if it ends before."""
    latest = lease.issued_at + max_ttl
    if lease.max_expires_at <= latest:
        return lease
    return replace(lease, max_expires_at=latest, expires_at=min(lease.expires_at, latest))


def renew(lease: Lease, *, ttl: float | None, credential_left: float | None, now: float) -> Lease:
    """The lease extended by `ttl` from now, or by the time first requested. Never past its maximum or its credential's end.

    Raises LeaseExpired, InvalidArgument.
    """
    asked = check_ttl(ttl, default=lease.asked)
    if lease.expires_at <= now:
        raise LeaseExpired(f"lease expired {now - lease.expires_at:.0f} s ago: acquire another")
    until = min(now + asked, lease.max_expires_at)
    if credential_left is not None:
        until = min(until, now + credential_left)
    return replace(lease, expires_at=until)
