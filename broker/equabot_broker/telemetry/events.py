"""Domain events. A class of events is declared once: its fields, and what the audit log, the log and the metrics have of it.

The engine emits events, and the sinks receive them: the audit log, the metrics and the log. An event has names, counts and
durations, and never a secret. `emit` calls the sinks one after the other, so a sink returns at once and does not raise.

The audit log is the exception. With `audit.fail_closed` it raises AuditUnavailable for a `granting` event that it cannot
record. A granting event is therefore emitted before it takes effect.

A field `lease` is the id of a lease. Only the audit log has it, as a keyed digest.
"""

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar, dataclass_transform

from equabot_broker.domain.errors import BrokerError
from equabot_broker.telemetry.incidents import incident
from equabot_broker.telemetry.metric_declarations import EventMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. A subclass is declared with `@event`, which sets the class variables.

    A `granting` event gives a credential to an agent. Its emitter changes nothing before the event is emitted, and does not
    catch AuditUnavailable. A `summed` event gives nothing, and an agent or a stranger can cause any number of them. The log and
    the audit log have the first ones, and sums of the others (`folding`). The metrics count each event.
    """

    message: ClassVar[str] = ""
    """The message in the log: the words of the class's name."""
    level: ClassVar[int] = logging.NOTSET
    """The level in the log. NOTSET: the event is not logged."""
    audit_kind: ClassVar[str] = ""
    """The `kind` of the event's record in the audit log. Empty: the event is not recorded."""
    granting: ClassVar[bool] = False
    summed: ClassVar[bool] = False
    metrics: ClassVar[tuple[EventMetric, ...]] = ()
    """The metrics that count the event."""

    def log_level(self) -> int:
        """The level of this event in the log."""
        return self.level

    def log_message(self) -> str:
        """The message of this event in the log."""
        return self.message


E = TypeVar("E", bound=Event)
_DECLARED: Final[list[type[Event]]] = []


@dataclass_transform(frozen_default=True, kw_only_default=True)
def event(
    *metrics: EventMetric, audit: str = "", level: int = logging.INFO, granting: bool = False, summed: bool = False
) -> Callable[[type[E]], type[E]]:
    """Declares a class of events, and makes it a frozen dataclass. The arguments are the class variables of `Event`."""

    def declare(declared: type[E]) -> type[E]:
        kind = dataclass(frozen=True, slots=True, kw_only=True)(declared)
        kind.message = re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
        kind.audit_kind, kind.level, kind.granting, kind.summed, kind.metrics = audit, level, granting, summed, metrics
        _DECLARED.append(kind)
        return kind

    return declare


def declared_events() -> tuple[type[Event], ...]:
    """Every class of events in the modules that are imported."""
    return tuple(_DECLARED)


@event(audit="summed")
class Summed(Event):
    """`count` further events of one class, caller (`agent`) and reason, within `seconds`.

    `of` is their kind in the audit log. `agent` is empty for an unknown caller. `provider` and `profile` are empty if they
    differ. `first` and `last` are the times of the first and the last of these events.
    """

    of: str
    agent: str
    reason: str
    provider: str
    profile: str
    count: int
    seconds: float
    first: str
    last: str

    def log_level(self) -> int:
        """The level of the events that are summed."""
        return next((kind.level for kind in _DECLARED if kind.audit_kind == self.of), logging.INFO)

    def log_message(self) -> str:
        """How many there were."""
        return f"{self.of}: and {self.count} more in {self.seconds:.0f} s"


Sink = Callable[[Event], None]


class Events:
    """Where events are emitted. `sinks` may change at any time."""

    __slots__ = ("sinks",)

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = list(sinks)

    def emit(self, event: Event) -> None:
        """Calls every sink, in order. Raises the BrokerError of a sink; another exception of a sink is an incident of it."""
        emit_to(self.sinks, event)


def emit_to(sinks: Iterable[Sink], event: Event) -> None:
    """Calls every sink with the event, in order. Raises as `Events.emit` does."""
    for sink in sinks:
        try:
            sink(event)
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - a port: the other sinks still receive the event
            incident("sink", getattr(sink, "__qualname__", "unknown"), error)
