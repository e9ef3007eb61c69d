"""Everything the broker can refuse, with whose fault it is.

    BrokerError                     reason              retryable  whose
    ├── InvalidArgument             INVALID_ARGUMENT    no         the caller's request is malformed
    ├── ProviderUnknown             PROVIDER_UNKNOWN    no         the caller, or a missing `providers` entry
    ├── ProfileNotFound             PROFILE_NOT_FOUND   no         the caller, or a source lost it
    ├── NoUsableProfile             NO_USABLE_PROFILE   yes        the operator: no candidate can serve
    ├── PolicyDenied                POLICY_DENIED       no         the operator's policy says no
    │   ├── Unidentified            POLICY_DENIED       no         a caller from elsewhere does not show who it is
    │   └── WebsocketRefused        WEBSOCKET_REFUSED   no         a WebSocket where none is listed (gateway only)
    ├── DeliveryNotAllowed          DELIVERY_NOT_ALLOWED no        the operator's policy says no to this delivery
    ├── AgentSuspended              AGENT_SUSPENDED     no         an operator has suspended the agent
    ├── LeaseNotFound               LEASE_NOT_FOUND     no         the caller: acquire another
    ├── LeaseExpired                LEASE_EXPIRED       no         the caller came too late: acquire another
    ├── LeaseLimit                  LEASE_LIMIT         yes        the caller holds too many
    ├── RateLimited                 RATE_LIMITED        yes        the caller asks too often
    ├── SourceNotSynced             SOURCE_NOT_SYNCED   yes        a source has not been read yet
    │   └── IdentityUnchecked       SOURCE_NOT_SYNCED   yes        what tells who is calling cannot be asked now
    ├── RefreshFailed               REFRESH_FAILED      yes        the provider's token endpoint
    ├── ReauthRequired              REAUTH_REQUIRED     no         a person must log in again
    ├── AuditUnavailable            AUDIT_UNAVAILABLE   yes        the operator: what must be recorded cannot be
    ├── StateUnavailable            STATE_UNAVAILABLE   yes        the operator: what must survive a restart cannot be stored
    └── ShuttingDown                SHUTTING_DOWN       yes        the broker is draining

A message says what is wrong, where, and what to do. It never holds a secret or a piece of one.
"""

from collections.abc import Mapping
from typing import ClassVar


class BrokerError(Exception):
    """A refusal with a reason the outside can rely on.

    `metadata` holds short texts by name, for the wire: candidate ids and why each was not used, for instance.
    """

    reason: ClassVar[str]
    retryable: ClassVar[bool] = False
    soon: ClassVar[float | None] = None
    """In how many seconds it is worth asking again, where nothing says it better."""

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def wait(self) -> float | None:
        """In how many seconds it is worth asking again; None: it takes a person, or the same request is never granted."""
        return self.soon if self.retry_after is None else self.retry_after


class InvalidArgument(BrokerError):
    reason = "INVALID_ARGUMENT"


class ProviderUnknown(BrokerError):
    reason = "PROVIDER_UNKNOWN"


class ProfileNotFound(BrokerError):
    reason = "PROFILE_NOT_FOUND"


class NoUsableProfile(BrokerError):
    reason = "NO_USABLE_PROFILE"
    retryable = True


class PolicyDenied(BrokerError):
    reason = "POLICY_DENIED"


class Unidentified(PolicyDenied):
    """No token and no certificate came with the call, or one that does not hold. On the wire it has a code of its own."""


class WebsocketRefused(PolicyDenied):
    """The request would pass, but not as the beginning of a WebSocket. Only the gateway says this."""

    reason = "WEBSOCKET_REFUSED"


class DeliveryNotAllowed(BrokerError):
    reason = "DELIVERY_NOT_ALLOWED"


class AgentSuspended(BrokerError):
    """An operator has suspended the agent: it gets nothing until it is resumed. `metadata` names the agent."""

    reason = "AGENT_SUSPENDED"


class LeaseNotFound(BrokerError):
    reason = "LEASE_NOT_FOUND"


class LeaseExpired(BrokerError):
    reason = "LEASE_EXPIRED"


class LeaseLimit(BrokerError):
    reason = "LEASE_LIMIT"
    retryable = True


class RateLimited(BrokerError):
    reason = "RATE_LIMITED"
    retryable = True


class SourceNotSynced(BrokerError):
    reason = "SOURCE_NOT_SYNCED"
    retryable = True
    soon = 1.0


class IdentityUnchecked(SourceNotSynced):
    """Whether a caller is who it says cannot be found out now, so it is refused for now."""


class RefreshFailed(BrokerError):
    """A login has to be refreshed first. `retry_after` is when that is tried again; None: it is due, or under way."""

    reason = "REFRESH_FAILED"
    retryable = True
    soon = 1.0


class ReauthRequired(BrokerError):
    reason = "REAUTH_REQUIRED"


class AuditUnavailable(BrokerError):
    """`audit.fail_closed` is on, and the audit log cannot be written. Nothing was granted."""

    reason = "AUDIT_UNAVAILABLE"
    retryable = True
    soon = 1.0


class StateUnavailable(BrokerError):
    """`state.db` cannot be written. What was asked is in force, and a restart would forget it."""

    reason = "STATE_UNAVAILABLE"
    retryable = True
    soon = 1.0


class ShuttingDown(BrokerError):
    reason = "SHUTTING_DOWN"
    retryable = True
    soon = 1.0


class CannotStart(Exception):
    """Why a broker does not start: what is wrong, where, and what to do. For the one who starts it; it never travels, and it
    holds no secret."""
