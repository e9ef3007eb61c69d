"""The errors with which the broker refuses requests, and who can resolve each.

    BrokerError                     reason              retryable  cause
    ├── InvalidArgument             INVALID_ARGUMENT    no         the caller's request is malformed
    ├── ProviderUnknown             PROVIDER_UNKNOWN    no         the caller, or a missing `providers` entry
    ├── ProfileNotFound             PROFILE_NOT_FOUND   no         the caller, or a source lost it
    ├── NoUsableProfile             NO_USABLE_PROFILE   yes        the operator: no candidate can serve
    ├── PolicyDenied                POLICY_DENIED       no         the operator's policy says no
    │   ├── Unidentified            POLICY_DENIED       no         a remote caller without a valid proof
    │   └── WebsocketRefused        WEBSOCKET_REFUSED   no         a WebSocket that no rule allows (gateway only)
    ├── DeliveryNotAllowed          DELIVERY_NOT_ALLOWED no        the operator's policy excludes this delivery
    ├── AgentSuspended              AGENT_SUSPENDED     no         an operator has suspended the agent
    ├── LeaseNotFound               LEASE_NOT_FOUND     no         the caller: acquire another
    ├── LeaseExpired                LEASE_EXPIRED       no         the caller renewed too late: acquire another
    ├── LeaseLimit                  LEASE_LIMIT         yes        the caller holds too many leases
    ├── RateLimited                 RATE_LIMITED        yes        the caller sends too many requests
    ├── SourceNotSynced             SOURCE_NOT_SYNCED   yes        a source has not been read yet
    │   └── IdentityUnchecked       SOURCE_NOT_SYNCED   yes        the API server cannot verify the caller now
    ├── RefreshFailed               REFRESH_FAILED      yes        the provider's token endpoint
    ├── ReauthRequired              REAUTH_REQUIRED     no         a person must log in again
    ├── AuditUnavailable            AUDIT_UNAVAILABLE   yes        the operator: the audit log cannot be written
    ├── StateUnavailable            STATE_UNAVAILABLE   yes        the operator: the state cannot be stored
    └── ShuttingDown                SHUTTING_DOWN       yes        the broker is draining

A message says what is wrong, where, and what to do. It never contains a secret or a part of one.
"""

from collections.abc import Mapping
from typing import ClassVar


class BrokerError(Exception):
    """A refusal with a stable reason.

    `metadata` maps names to short texts for the client: for example candidate ids to the reasons why they cannot serve.
    """

    reason: ClassVar[str]
    retryable: ClassVar[bool] = False
    soon: ClassVar[float | None] = None
    """The default for the seconds until another attempt can succeed."""

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after = retry_after

    @property
    def wait(self) -> float | None:
        """Seconds until another attempt can succeed. None: a person must act, or the request is never granted."""
        return self.soon if self.retry_after is None else self.retry_after


class InvalidArgument(BrokerError):
    """A field of the request is missing or malformed, or contradicts another field.

    Correct the field that the message names."""

    reason = "INVALID_ARGUMENT"


class ProviderUnknown(BrokerError):
    """No provider has that name.

    Correct the name, or describe the provider under `providers` in the configuration."""

    reason = "PROVIDER_UNKNOWN"


class ProfileNotFound(BrokerError):
    """No profile has that id, or the agent may not use it.

    Look at `equabot models status` for the ids, and at the source that held the profile."""

    reason = "PROFILE_NOT_FOUND"


class NoUsableProfile(BrokerError):
    """None of the provider's profiles can serve now. `metadata` has the reason of each candidate.

    Follow the reason of the candidate. Ask again after the delay in `RetryInfo`, if there is one."""

    reason = "NO_USABLE_PROFILE"
    retryable = True


class PolicyDenied(BrokerError):
    """The agent's policy does not allow the request.

    Change `agents.<agent>` in the configuration, or ask for something that it allows."""

    reason = "POLICY_DENIED"


class Unidentified(PolicyDenied):
    """A call over TCP came without a valid token or certificate.

    Send a service account's token for the configured audience, or use a client certificate."""


class WebsocketRefused(PolicyDenied):
    """A request asks for a WebSocket on a path that allows only HTTP. Only the gateway returns this reason.

    Use HTTP, or list the path in `providers.<provider>.websockets`."""

    reason = "WEBSOCKET_REFUSED"


class DeliveryNotAllowed(BrokerError):
    """The agent's policy does not allow this delivery, or no gateway runs for a brokered lease.

    Ask for another delivery, change `agents.<agent>.deliveries`, or start the gateway."""

    reason = "DELIVERY_NOT_ALLOWED"


class AgentSuspended(BrokerError):
    """An operator has suspended the agent: it gets no credentials until it is resumed. `metadata` names the agent.

    Ask the operator, who runs `equabot agent resume AGENT`."""

    reason = "AGENT_SUSPENDED"


class LeaseNotFound(BrokerError):
    """The lease was revoked, has ended, or did not exist.

    Acquire another lease."""

    reason = "LEASE_NOT_FOUND"


class LeaseExpired(BrokerError):
    """The lease has ended.

    Acquire another lease, and renew it in time."""

    reason = "LEASE_EXPIRED"


class LeaseLimit(BrokerError):
    """The agent holds as many leases as its policy allows.

    Revoke a lease, wait until one ends, or raise `agents.<agent>.max_leases`."""

    reason = "LEASE_LIMIT"
    retryable = True


class RateLimited(BrokerError):
    """The agent sends more requests, or has more requests in progress, than its policy allows.

    Wait for the delay in the answer, or raise `agents.<agent>.rate`, `burst` or `max_requests`."""

    reason = "RATE_LIMITED"
    retryable = True


class SourceNotSynced(BrokerError):
    """A source was not read yet, so that the broker does not know all profiles.

    Ask again in a second. If it lasts, `equabot doctor` names the source."""

    reason = "SOURCE_NOT_SYNCED"
    retryable = True
    soon = 1.0


class IdentityUnchecked(SourceNotSynced):
    """The broker cannot verify the caller now, because the API server does not answer.

    Ask again in a second. If it lasts, check that the broker can reach the API server."""


class RefreshFailed(BrokerError):
    """A login must be refreshed first, and its token endpoint has not refreshed it yet. `retry_after` is the
    time until the next attempt. Without it, the attempt is due or in progress.

    Ask again after the delay in `RetryInfo`. If it lasts, check that the broker can reach the token endpoint."""

    reason = "REFRESH_FAILED"
    retryable = True
    soon = 1.0


class ReauthRequired(BrokerError):
    """A login can no longer be refreshed.

    A person logs in again: the message has the command."""

    reason = "REAUTH_REQUIRED"


class AuditUnavailable(BrokerError):
    """`audit.fail_closed` is on, and the audit log cannot be written. Nothing was granted.

    The operator makes the log writable again: the broker's log has the reason."""

    reason = "AUDIT_UNAVAILABLE"
    retryable = True
    soon = 1.0


class StateUnavailable(BrokerError):
    """`state.db` cannot be written. The change is in effect, but a restart would lose it.

    Free space for `state.db`, then ask again."""

    reason = "STATE_UNAVAILABLE"
    retryable = True
    soon = 1.0


class ShuttingDown(BrokerError):
    """The broker is stopping.

    Ask again in a second: clients connect to the next broker."""

    reason = "SHUTTING_DOWN"
    retryable = True
    soon = 1.0


class CannotStart(Exception):
    """Why the broker does not start, and what to do. The message is for the operator and contains no secret."""
