"""Events as the audit log tells them: which of them, and with what. A lease is told by a keyed digest of its id."""

import hmac
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache, partial
from typing import Final

from equabot_broker.telemetry.audit_chain import pseudonym
from equabot_broker.telemetry.broker_events import (
    Administered,
    CallerRefused,
    ConfigurationReloaded,
    ReloadFailed,
    SuspensionLifted,
    SuspensionSet,
)
from equabot_broker.telemetry.credential_events import (
    CredentialProbed,
    LoginInvalidated,
    ProfilesChanged,
    RefreshAttemptFailed,
    RefreshSucceeded,
)
from equabot_broker.telemetry.events import Event, Summed
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayRefused, GatewayUsed, SecretPushed
from equabot_broker.telemetry.lease_events import (
    LeaseDenied,
    LeaseGranted,
    LeaseMoved,
    LeaseRenewed,
    LeaseRevoked,
    MaterialDelivered,
    OutcomeReported,
    RenewalDenied,
)

KINDS: Final[dict[type[Event], str]] = {
    LeaseGranted: "granted",
    LeaseRenewed: "renewed",
    LeaseMoved: "moved",
    MaterialDelivered: "delivered",
    SecretPushed: "pushed",
    LeaseRevoked: "revoked",
    LeaseDenied: "denied",
    RenewalDenied: "renewal_denied",
    CallerRefused: "caller_refused",
    OutcomeReported: "outcome",
    CredentialProbed: "probed",
    RefreshSucceeded: "refreshed",
    RefreshAttemptFailed: "refresh_failed",
    LoginInvalidated: "reauth_required",
    ProfilesChanged: "rotated",
    SuspensionSet: "agent_suspended",
    SuspensionLifted: "agent_resumed",
    Administered: "administered",
    ConfigurationReloaded: "reloaded",
    ReloadFailed: "reload_refused",
    GatewayAuthorized: "authorized",
    GatewayUsed: "used",
    GatewayRefused: "refused",
    Summed: "summed",
}
"""What is recorded, and under which `kind`. The log has kinds of its own beside these: `begun`, `resumed`, `ended`."""

_FREE: Final = frozenset({"route", "session", "reason", "words", "resource"})
"""Texts that are not ours alone."""
_FIELDS: Final = {
    kind: tuple((one.name, one.type is int or (one.type is str and one.name not in {"lease", *_FREE})) for one in fields(kind))
    for kind in KINDS
}
"""The names of fields, and whether they are recorded as they are."""
_LISTED: Final = 20


class Records:
    """Makes records. `key` is what the digests of leases are made with; `clean` takes secrets out of a text."""

    def __init__(self, *, key: bytes, clean: Callable[[str], str]) -> None:
        # A lease in use is told of again and again.
        self._pseudonym = lru_cache(maxsize=256)(partial(pseudonym, key=hmac.digest(key, b"audit: leases", "sha256")))
        self._clean = clean

    def of(self, event: Event, *, at: str) -> dict[str, object]:
        """What is recorded of the event, one of `KINDS`, without what is empty."""
        record: dict[str, object] = {"ts": at, "kind": KINDS[type(event)]}
        for name, plain in _FIELDS[type(event)]:
            value = getattr(event, name)
            if value not in ("", ()):
                record[name] = value if plain else self._field(name, value)
        return record

    def _field(self, name: str, value: object) -> object:
        match value:
            case str() if name == "lease":
                return self._pseudonym(value)
            case str() if name in _FREE:
                return self._clean(value)
            case float():
                return round(value, 6)
            case tuple() if len(value) > _LISTED:
                return [*value[:_LISTED], f"and {len(value) - _LISTED} more"]
        return value


def shortened(record: dict[str, object], limit: int) -> dict[str, object]:
    """The record with no text longer than so many characters."""
    return {
        name: value[:limit] + "…" if isinstance(value, str) and len(value) > limit else _items(value, limit)
        for name, value in record.items()
    }


def _items(value: object, limit: int) -> object:
    return [str(item)[:limit] for item in value] if isinstance(value, (list, tuple)) else value
