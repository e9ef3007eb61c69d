"""What happens to the broker itself, its configuration and its operators' orders, as typed events."""

from dataclasses import dataclass
from typing import ClassVar

from equabot_broker.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The broker serves. `seconds` since its process began to start it."""

    version: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining(Event):
    """The broker has begun to stop: why (`SIGTERM`, say)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerRefused(Event):
    """A call over the network was not let in: `reason` is the code on the wire (UNAUTHENTICATED, PERMISSION_DENIED or
    UNAVAILABLE), `words` its message."""

    summed: ClassVar[bool] = True

    reason: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionSet(Event):
    """An operator suspended an agent, or repeated it: `reason` in the operator's words; `leases` ended by it."""

    agent: str
    reason: str
    leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionLifted(Event):
    """An operator resumed a suspended agent."""

    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Administered(Event):
    """An operator did something: `action` as in the admin service (`RevokeLeases`, `SetOrder`…), to what the other fields name
    as far as they were given; `count` is how many leases or profiles it concerned."""

    action: str
    agent: str = ""
    provider: str = ""
    profile: str = ""
    lease: str = ""
    profiles: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReloaded(Event):
    """The configuration was read again and is in effect. `by`: `admin`, `SIGHUP`; `digest` tells one configuration from
    another; `changes` name what differs, without values; `leases` ended by it."""

    by: str
    digest: str
    changes: tuple[str, ...]
    leases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadFailed(Event):
    """The configuration was read again and refused whole: it has so many `faults`, or needs a restart, or cannot be applied
    (`reason`)."""

    by: str
    reason: str
    faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFaulted(Event):
    """State cannot be stored; it is kept in memory meanwhile."""

    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRecovered(Event):
    """State is stored again, what had piled up included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Event):
    """The wall clock moved by so many seconds against the steady one; forward is positive."""

    seconds: float
