"""What happens in the broker, as typed events. They carry names, counts and durations; never a secret.

The engine emits, the sinks (the audit log, metrics, the log) listen. A sink is called in line with the work it hears of, so it
returns at once and does not raise. The one that may is the audit log, where nothing may be granted that cannot be recorded: it
refuses what is `granting`, which is therefore emitted before it takes effect.

`lease` is a lease's id, which only the audit log hears of, and writes as a keyed digest.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from equabot_broker.domain.errors import BrokerError
from equabot_broker.telemetry.incidents import incident


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    A `granting` one gives a credential to an agent. It is emitted first and done then: who emits it lets pass what is raised
    (`AuditUnavailable`), having changed nothing. A `summed` one gives nothing, and an agent or a stranger can cause any number
    of them: the log and the audit log hold the first ones, and sums of the others (`folding`). Metrics count each.
    """

    granting: ClassVar[bool] = False
    summed: ClassVar[bool] = False


Sink = Callable[[Event], None]


class Events:
    """Where events are emitted. `sinks` may grow and shrink at any time."""

    __slots__ = ("sinks",)

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = list(sinks)

    def emit(self, event: Event) -> None:
        """Tells every sink, in order. What a sink raises is an incident of that sink, but for a refusal to record."""
        tell(self.sinks, event)


def tell(sinks: Iterable[Sink], event: Event) -> None:
    """Tells every sink, in order."""
    for sink in sinks:
        try:
            sink(event)
        except BrokerError:
            raise
        except Exception as error:  # noqa: BLE001 - a port: the others have to hear of it
            incident("sink", getattr(sink, "__qualname__", "unknown"), error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed(Event):
    """Further events of one kind (`of`, as in the audit log), caller (`agent`; empty: unknown) and reason: how many there were
    in so many seconds, and when the first and the last one was. `provider` and `profile` are empty where they differed."""

    of: str
    agent: str
    reason: str
    provider: str
    profile: str
    count: int
    seconds: float
    first: str
    last: str
