"""What happens to credentials and their sources, as typed events."""

from dataclasses import dataclass
from typing import ClassVar

from equabot_broker.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilesChanged(Event):
    """Profiles came, went or have new material. `seconds` from when the source said so until every stream was told."""

    profiles: tuple[str, ...]
    source: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStateChanged(Event):
    """States as in `State`; `before` is empty for a profile that is new."""

    profile: str
    provider: str
    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialProbed(Event):
    """The broker itself is about to try a credential on its provider, because of an outcome (`about`) that one agent alone has
    met, or to see whether a refused one is good again. `agent` is whose it is; empty: every agent's."""

    granting: ClassVar[bool] = True

    provider: str
    profile: str
    about: str
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshSucceeded(Event):
    """A login has new tokens, after so many seconds: its endpoint gave them, or (`adopted`) another process had stored them.
    `agent` is whose it is; empty: everybody's."""

    profile: str
    provider: str
    adopted: bool
    seconds: float
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshAttemptFailed(Event):
    """A login has no new tokens, and will be tried again after so many seconds. `outcome` as in `Blame`."""

    profile: str
    provider: str
    outcome: str
    reason: str
    retry_in: float
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginInvalidated(Event):
    """A login can be refreshed no more: why, and the command with which a person logs in again."""

    profile: str
    provider: str
    reason: str
    command: str
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSynced(Event):
    """A source was read in full: how many profiles it holds."""

    source: str
    profiles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStale(Event):
    """A source cannot be read; its last good values are served for as long as the stale budget lasts."""

    source: str
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDoubted(Event):
    """A source was read, and some of what it holds cannot be used: the first of these faults, without any value."""

    source: str
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecovered(Event):
    """A source that was stale is read again."""

    source: str
