"""Events about the broker itself: its process, its configuration, its state, its callers and the actions of operators."""

import logging

from equabot_broker.telemetry.events import Event, event
from equabot_broker.telemetry.metric_declarations import EventCounter


@event()
class Started(Event):
    """The broker serves, `seconds` after its process began to start it."""

    version: str
    seconds: float


@event()
class Draining(Event):
    """The broker has begun to stop. `reason` is, for example, `SIGTERM`."""

    reason: str


@event(
    EventCounter(
        "equabot_callers_refused_total",
        "Counts network calls whose caller the broker refused, by gRPC status code.",
        ("reason",),
    ),
    audit="caller_refused",
    summed=True,
)
class CallerRefused(Event):
    """The broker refused the caller of a network call. `reason` is the gRPC status code (UNAUTHENTICATED, PERMISSION_DENIED or
    UNAVAILABLE), and `words` is the message."""

    reason: str
    words: str


@event(audit="agent_suspended", level=logging.WARNING)
class SuspensionSet(Event):
    """An operator suspended an agent, or did so again. `reason` is the operator's text. `leases` is the number of leases that
    ended."""

    agent: str
    reason: str
    leases: int


@event(audit="agent_resumed", level=logging.WARNING)
class SuspensionLifted(Event):
    """An operator resumed a suspended agent."""

    agent: str


@event(audit="administered")
class Administered(Event):
    """An operator called `action` of the admin service, for example `RevokeLeases`. The other fields are from the request.
    `count` is the number of leases or profiles that changed."""

    action: str
    agent: str = ""
    provider: str = ""
    profile: str = ""
    lease: str = ""
    profiles: tuple[str, ...] = ()
    count: int = 0


@event(audit="reloaded")
class ConfigurationReloaded(Event):
    """The configuration was read again, and is in effect.

    `by` is `admin` or `SIGHUP`. `digest` identifies the configuration. `changes` name the keys that differ, without values.
    `leases` is the number of leases that ended.
    """

    by: str
    digest: str
    changes: tuple[str, ...]
    leases: int


@event(audit="reload_refused", level=logging.ERROR)
class ReloadFailed(Event):
    """The configuration was read again, and the broker refused it whole. It has so many `faults`, needs a restart, or cannot be
    applied (`reason`)."""

    by: str
    reason: str
    faults: int


@event(level=logging.ERROR)
class StoreFaulted(Event):
    """The broker cannot store its state. Until it can, the state is in memory."""

    fault: str


@event()
class StoreRecovered(Event):
    """The broker can store its state again, and has stored what was waiting."""


@event(level=logging.WARNING)
class ClockJumped(Event):
    """The wall clock moved by `seconds` against the steady clock. A positive number is forward."""

    seconds: float
