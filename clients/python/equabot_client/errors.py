"""Everything that can go wrong between an agent and its broker, by reason.

    EquabotError                reason               retryable  whose
    ├── BrokerUnavailable       BROKER_UNAVAILABLE   yes        nobody listens there, or it went away
    ├── BrokerNotTrusted        BROKER_NOT_TRUSTED   no         another user may have put the socket there: see its owners
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    yes        somebody listens and does not answer in time
    ├── Unsupported             UNIMPLEMENTED        no         an older broker, or a proxy that cannot pass the call
    ├── Unexpected              UNEXPECTED           no         what answered is not a broker, or has a fault of its own
    ├── FileUnreadable          FILE_UNREADABLE      yes        a token or certificate of our own is not there (yet)
    ├── CredentialClosed        CLOSED               no         the caller: the credential or broker was closed
    ├── Forked                  FORKED               no         the caller: `aio` was used before os.fork, and after it
    ├── InvalidArgument         INVALID_ARGUMENT     no         the caller's request is malformed
    ├── ProviderUnknown         PROVIDER_UNKNOWN     no         the caller, or the broker's configuration
    ├── ProfileNotFound         PROFILE_NOT_FOUND    no         the caller, or a source lost it
    ├── NoUsableProfile         NO_USABLE_PROFILE    yes        the operator: see `candidates`
    ├── PolicyDenied            POLICY_DENIED        no         the operator's policy says no
    ├── DeliveryNotAllowed      DELIVERY_NOT_ALLOWED no         the operator's policy says no to this delivery
    ├── AgentSuspended          AGENT_SUSPENDED      no         an operator has suspended the agent, until it is resumed
    ├── LeaseNotFound           LEASE_NOT_FOUND      no         it was revoked or never was: acquire another
    ├── LeaseExpired            LEASE_EXPIRED        no         the caller came too late: acquire another
    ├── LeaseLimit              LEASE_LIMIT          yes        the agent holds too many
    ├── RateLimited             RATE_LIMITED         yes        the agent asks too often: see `retry_after`
    ├── SourceNotSynced         SOURCE_NOT_SYNCED    yes        the broker has not read its sources yet
    ├── RefreshFailed           REFRESH_FAILED       yes        the provider's token endpoint
    ├── ReauthRequired          REAUTH_REQUIRED      no         a person must log in again
    ├── AuditUnavailable        AUDIT_UNAVAILABLE    yes        the operator: the broker cannot record, so it does not grant
    ├── StateUnavailable        STATE_UNAVAILABLE    yes        the operator's call holds, but a restart would forget it
    └── ShuttingDown            SHUTTING_DOWN        yes        the broker is draining

A reason that a newer broker has and this client does not is a plain EquabotError with that `reason`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Self


class EquabotError(Exception):
    """A refusal or a failure. `retryable` says whether the same call may succeed later without anybody's doing.

    `metadata` holds short texts by name; `retry_after` is in seconds, where the broker asked for a wait. No secret in it.
    """

    reason: str = "UNKNOWN"
    retryable: bool = False

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self.retry_after = retry_after

    @property
    def candidates(self) -> Mapping[str, str]:
        """Where no profile could serve: each candidate's id and why it was not used. Elsewhere empty."""
        return self.metadata if self.reason == NoUsableProfile.reason else MappingProxyType({})

    def again(self) -> Self:
        """The same error without the history of where it was raised before."""
        error = type(self)(self.message, metadata=self.metadata, retry_after=self.retry_after)
        error.reason = self.reason
        return error


class BrokerUnavailable(EquabotError):
    reason = "BROKER_UNAVAILABLE"
    retryable = True


class BrokerNotTrusted(EquabotError):
    reason = "BROKER_NOT_TRUSTED"


class DeadlineExceeded(EquabotError):
    reason = "DEADLINE_EXCEEDED"
    retryable = True


class Unsupported(EquabotError):
    reason = "UNIMPLEMENTED"


class Unexpected(EquabotError):
    reason = "UNEXPECTED"


class FileUnreadable(EquabotError):
    reason = "FILE_UNREADABLE"
    retryable = True


class CredentialClosed(EquabotError):
    reason = "CLOSED"


class Forked(EquabotError):
    reason = "FORKED"


class InvalidArgument(EquabotError):
    reason = "INVALID_ARGUMENT"


class ProviderUnknown(EquabotError):
    reason = "PROVIDER_UNKNOWN"


class ProfileNotFound(EquabotError):
    reason = "PROFILE_NOT_FOUND"


class NoUsableProfile(EquabotError):
    reason = "NO_USABLE_PROFILE"
    retryable = True


class PolicyDenied(EquabotError):
    reason = "POLICY_DENIED"


class DeliveryNotAllowed(EquabotError):
    reason = "DELIVERY_NOT_ALLOWED"


class AgentSuspended(EquabotError):
    reason = "AGENT_SUSPENDED"


class LeaseNotFound(EquabotError):
    reason = "LEASE_NOT_FOUND"


class LeaseExpired(EquabotError):
    reason = "LEASE_EXPIRED"


class LeaseLimit(EquabotError):
    reason = "LEASE_LIMIT"
    retryable = True


class RateLimited(EquabotError):
    reason = "RATE_LIMITED"
    retryable = True


class SourceNotSynced(EquabotError):
    reason = "SOURCE_NOT_SYNCED"
    retryable = True


class RefreshFailed(EquabotError):
    reason = "REFRESH_FAILED"
    retryable = True


class ReauthRequired(EquabotError):
    reason = "REAUTH_REQUIRED"


class AuditUnavailable(EquabotError):
    reason = "AUDIT_UNAVAILABLE"
    retryable = True


class StateUnavailable(EquabotError):
    reason = "STATE_UNAVAILABLE"
    retryable = True


class ShuttingDown(EquabotError):
    reason = "SHUTTING_DOWN"
    retryable = True


_BY_REASON: Final = {kind.reason: kind for kind in EquabotError.__subclasses__()}


def by_reason(
    reason: str, message: str, *, metadata: Mapping[str, str] | None = None, retry_after: float | None = None
) -> EquabotError:
    """The error for a reason, also for one that this client does not know."""
    error = _BY_REASON.get(reason, EquabotError)(message, metadata=metadata, retry_after=retry_after)
    error.reason = reason
    return error
