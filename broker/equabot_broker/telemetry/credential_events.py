"""Events about credentials and the sources that they come from."""

import logging
from typing import Final

from equabot_broker.telemetry.events import Event, event
from equabot_broker.telemetry.metric_declarations import EventCounter, EventHistogram

_USABLE: Final = ("ok", "")
_REFRESHES: Final = EventCounter(
    "equabot_refreshes_total",
    "Counts login refreshes by outcome: refreshed, adopted (from another process), transient, uncertain, reauth_required.",
    ("provider", "outcome"),
)


@event(
    EventHistogram(
        "equabot_rotation_seconds",
        "Seconds from a change in a source to the notice on every stream.",
        (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    ),
    audit="rotated",
)
class ProfilesChanged(Event):
    """Profiles were added or removed, or have new material. `seconds` is the time from the report of the source until every
    stream was notified."""

    profiles: tuple[str, ...]
    source: str
    seconds: float


@event()
class CredentialStateChanged(Event):
    """A profile has another state. The states are values of `State`; `before` is empty for a new profile."""

    profile: str
    provider: str
    before: str
    after: str
    reason: str

    def log_level(self) -> int:
        """A warning for a credential that is not usable, or not for long."""
        return self.level if self.after in _USABLE else logging.WARNING


@event(audit="probed", granting=True)
class CredentialProbed(Event):
    """The broker is about to send a request with a credential to its provider.

    It does so for an outcome (`about`) that only one agent has reported, or to find out whether the provider accepts a rejected
    credential again. `agent` owns the credential; it is empty for a credential of all agents.
    """

    provider: str
    profile: str
    about: str
    agent: str = ""


@event(_REFRESHES, audit="refreshed")
class RefreshSucceeded(Event):
    """A login has new tokens, after `seconds`. They are from its token endpoint, or (`adopted`) another process stored them.
    `agent` owns the login; it is empty for a login of all agents."""

    profile: str
    provider: str
    adopted: bool
    seconds: float
    agent: str = ""

    @property
    def outcome(self) -> str:
        """The label of the metric."""
        return "adopted" if self.adopted else "refreshed"


@event(_REFRESHES, audit="refresh_failed", level=logging.WARNING)
class RefreshAttemptFailed(Event):
    """A login has no new tokens. The broker tries again after `retry_in` seconds. `outcome` is a value of `Blame`."""

    profile: str
    provider: str
    outcome: str
    reason: str
    retry_in: float
    agent: str = ""


@event(_REFRESHES, audit="reauth_required", level=logging.ERROR)
class LoginInvalidated(Event):
    """A login cannot be refreshed any more. `command` is the command with which a person logs in again."""

    profile: str
    provider: str
    reason: str
    command: str
    agent: str = ""

    @property
    def outcome(self) -> str:
        """The label of the metric."""
        return "reauth_required"


@event()
class SourceSynced(Event):
    """A source was read in full. It has so many `profiles`."""

    source: str
    profiles: int


@event(level=logging.WARNING)
class SourceStale(Event):
    """A source cannot be read. Its last valid profiles are served until `expiry.stale_budget` has passed."""

    source: str
    fault: str


@event(level=logging.WARNING)
class SourceDoubted(Event):
    """A source was read, and a part of its content is not usable. `faults` are the first ones, without a value."""

    source: str
    faults: tuple[str, ...]


@event()
class SourceRecovered(Event):
    """A source that was stale is readable again."""

    source: str
