"""Events in the log: what an operator wants to read, at the level at which they want to read it."""

import logging
import re
from dataclasses import fields
from typing import Final

from equabot_broker.telemetry._audit_records import KINDS
from equabot_broker.telemetry.broker_events import ClockJumped, ReloadFailed, StoreFaulted, SuspensionLifted, SuspensionSet
from equabot_broker.telemetry.credential_events import (
    CredentialStateChanged,
    LoginInvalidated,
    RefreshAttemptFailed,
    SourceDoubted,
    SourceStale,
)
from equabot_broker.telemetry.events import Event, Summed
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayLogSkipped, GatewayUsed, SecretPushed
from equabot_broker.telemetry.lease_events import (
    AcquireAnswered,
    LeaseGranted,
    LeaseMoved,
    LeaseRenewed,
    LeaseRevoked,
    MaterialDelivered,
    OutcomeReported,
    RenewalDenied,
)

_log: Final = logging.getLogger("equabot.events")

_LEVELS: Final[dict[type[Event], int]] = {
    AcquireAnswered: logging.NOTSET,  # a number, for metrics
    LeaseGranted: logging.DEBUG,
    LeaseRenewed: logging.DEBUG,
    LeaseMoved: logging.DEBUG,
    MaterialDelivered: logging.DEBUG,
    SecretPushed: logging.DEBUG,
    RenewalDenied: logging.DEBUG,  # often no more than a lease that is over
    LeaseRevoked: logging.DEBUG,  # as often as grants: the audit log is the place that counts them
    OutcomeReported: logging.DEBUG,
    GatewayAuthorized: logging.DEBUG,
    GatewayUsed: logging.DEBUG,
    GatewayLogSkipped: logging.DEBUG,
    ClockJumped: logging.WARNING,
    RefreshAttemptFailed: logging.WARNING,
    LoginInvalidated: logging.ERROR,
    SourceDoubted: logging.WARNING,
    SourceStale: logging.WARNING,
    StoreFaulted: logging.ERROR,
    ReloadFailed: logging.ERROR,
    SuspensionSet: logging.WARNING,
    SuspensionLifted: logging.WARNING,
}
_SUMMED: Final = {name: kind for kind, name in KINDS.items()}
_WELL: Final = frozenset({"ok", ""})

_UNTOLD: Final = frozenset({"lease", "session"})
"""Who knows a lease's id can use the lease, from its agent's socket; a session is whatever an agent calls it. They are for the
audit log."""
_OPTIONAL: Final = frozenset({"profiles", "agent"})
_EMPTY: Final = ("", ())
"""What is left out of those."""


_TOLD: Final[dict[type[Event], tuple[str, tuple[str, ...]]]] = {
    kind: (
        re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower(),
        tuple(field.name for field in fields(kind) if field.name not in _UNTOLD),
    )
    for kind in Event.__subclasses__()
}
"""`LeaseGranted` → "lease granted", and the names of its fields."""


def log_event(event: Event) -> None:
    """Writes the event with its fields. A sink for `Events`."""
    kind = type(event)
    level = _LEVELS.get(_SUMMED.get(event.of, kind) if isinstance(event, Summed) else kind, logging.INFO)
    if isinstance(event, CredentialStateChanged) and event.after not in _WELL:
        level = logging.WARNING
    if level and _log.isEnabledFor(level):
        words, names = _TOLD[kind]
        told = {name: getattr(event, name) for name in names}
        if isinstance(event, Summed):
            words = f"{event.of}: and {event.count} more in {event.seconds:.0f} s"
        _log.log(
            level, words, extra={name: value for name, value in told.items() if not (name in _OPTIONAL and value in _EMPTY)}
        )
