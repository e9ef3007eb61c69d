"""What a broker says, in Python's types. Instants are aware and UTC; optional ones are None."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import TypedDict

from equabot_client._secret import Secret, SecretMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A bounded right to a credential. It can be printed and logged: what is secret hides itself."""

    id: str
    provider: str
    profile: str
    """The profile chosen, `provider:name`."""
    mode: str
    """`api_key`, `token`, `oauth` or `wif`."""
    delivery: str
    """`raw`: `secret` is the provider's; `brokered`: it is a token that only the gateway at `base_url` understands."""
    secret: Secret
    headers: SecretMap = field(hash=False)
    """What a request to the provider must carry."""
    env: SecretMap = field(hash=False)
    """What a process must be given so that the vendor's SDK works."""
    base_url: str
    """Where requests go. Empty: the provider has no fixed address."""
    issued_at: datetime
    expires_at: datetime
    max_expires_at: datetime
    credential_expires_at: datetime | None
    renewable: bool
    version: int
    """Grows whenever the material behind the lease changes."""
    notice: str = field(default="", compare=False)
    """What the holder should know of the credential; empty for nothing."""

    def going_on_from(self, before: "Lease | None") -> "Lease":
        """The lease with the token of the one before, where the broker knows it no more: it keeps no token but as a digest."""
        if before is None or self.delivery != "brokered" or self.secret != Secret(""):
            return self
        return replace(self, secret=before.secret, headers=before.headers, env=before.env)

    def same_material(self, other: "Lease | None") -> bool:
        """Whether a request would carry and mean the same with either."""
        return other is not None and (
            (self.profile, self.version, self.secret, self.base_url)
            == (other.profile, other.version, other.secret, other.base_url)
            and self.headers == other.headers
            and self.env == other.env
        )


class EventKind(Enum):
    """What happened to a streamed lease. `UNKNOWN` is what a newer broker says and this client does not know."""

    UNKNOWN = 0
    GRANTED = 1
    ROTATED = 2
    RENEWED = 3
    EXPIRING = 4
    REVOKED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEvent:
    """One event of a stream. `lease` is None on REVOKED; `reason` says why on REVOKED and what ends on EXPIRING."""

    kind: EventKind
    lease: Lease | None
    reason: str
    lease_id: str


class Outcome(StrEnum):
    """How a provider answered a request."""

    OK = "ok"
    AUTH = "auth"
    """401 or 403."""
    RATE_LIMIT = "rate_limit"
    """429 or 529."""
    BILLING = "billing"
    """402."""
    TIMEOUT = "timeout"
    """408, or the network gave up."""
    FORMAT = "format"
    """400: another credential would not help, so nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What may be known of a profile. It holds no secret."""

    id: str
    provider: str
    mode: str
    source: str
    state: str
    """`ok`, `expiring`, `expired`, `missing`, `invalid`, `rejected` or `reauth_required`."""
    reason: str
    next: bool
    """Whether a request now would be served by it."""
    usable: bool
    pinned: bool
    label: str
    expires_at: datetime | None
    cooldown_until: datetime | None
    disabled_until: datetime | None
    disabled_reason: str
    last_used_at: datetime | None
    retry_at: datetime | None = None
    """When one that does not serve now serves, or is tried, again by itself. None: it serves, or it takes a person."""
    model_cooldowns: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """The models that it is in cooldown for, with the end of each."""
    base_url: str
    version: int


class Wanted(TypedDict, total=False):
    """What a request for a lease may say beside the provider. What it leaves out is the broker's choice."""

    profile: str | None
    """A profile id: only this one will do."""
    session: str | None
    """One conversation of the agent, within which a choice of profile stays."""
    model: str | None
    """What the requests are for. A profile in cooldown for this model comes after the others."""
    ttl: timedelta | None
    delivery: str | None
    """`raw` or `brokered`."""
    client: str | None
    """The program that the credential is for, by its command or name (`claude`): a vendor may take a credential from one
    program alone."""
    holder: str | None
    """A name for who asks, within the agent: with `brokered`, the token of the holder's last lease goes on."""


class Answered(TypedDict, total=False):
    """What a report may say of how the provider answered, beside the outcome."""

    retry_after: timedelta | None
    """What the provider asked for."""
    model: str | None
    """The model that was asked. Default: the one that the lease was acquired for."""
    elapsed: timedelta | None
    """How long ago the request was made: a failure from before a cooldown is part of it."""
    about_request: bool
    """With AUTH: the provider refused this request (403, or a 401 that speaks of scopes), and not the credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """What an agent asks for. `provider` may also be a profile id, `anthropic:work`: then only that one will do."""

    provider: str
    profile: str | None = None
    session: str | None = None
    model: str | None = None
    ttl: timedelta | None = None
    delivery: str | None = None
    client: str | None = None
    succeeds: str | None = None
    """The id of the lease whose token is to go on."""
    holder: str | None = None

    def after(self, lease: Lease | None) -> "LeaseRequest":
        """The request for the next lease: a token is in the environment of processes, which cannot be given another."""
        return self if lease is None or lease.delivery != "brokered" else replace(self, succeeds=lease.id)
