"""Declarations of metrics: the name, the help text and the labels of each, once.

An event's declaration has the metrics that count the event (`EventMetric`). A field of `Snapshot` has the metrics that show it
(`ReadMetric`). A name that ends in `_total` is a counter's.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

Sample = tuple[dict[str, str], float]
"""The labels of a series, and its value."""


@dataclass(frozen=True, slots=True)
class EventCounter:
    """Counts events. Each label is an attribute of the event."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def start(self) -> "EventCount":
        """The count at zero."""
        return EventCount(self)


@dataclass(frozen=True, slots=True)
class OpenGauge:
    """Shows how many things are open. Each event has `opens`, which is 1 or -1. `process` names the broker process in which the
    thing was opened. An end counts only if that is the process of the last opening."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    process: Callable[[Any], str] = lambda _: ""

    def start(self) -> "OpenCount":
        """The count at zero."""
        return OpenCount(self)


@dataclass(frozen=True, slots=True)
class EventHistogram:
    """Counts events by their `seconds`. `bounds` are the upper ends of the buckets, without the last bucket, in seconds."""

    name: str
    help: str
    bounds: tuple[float, ...]

    def start(self) -> "Distribution":
        """The counts at zero."""
        return Distribution(self)


@dataclass(frozen=True, slots=True)
class ReadMetric:
    """A metric that is read from the broker's state at each scrape. `of` converts the state into a number, or into a mapping
    from the values of the labels to a number. A label that has an empty value is left out."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    of: Callable[[Any], Any] = lambda state: state

    def samples(self, state: object) -> Iterator[Sample]:
        """One sample for each series."""
        read = self.of(state)
        for key, number in read.items() if isinstance(read, Mapping) else [((), read)]:
            values = (key,) if isinstance(key, str) else key
            yield {name: value for name, value in zip(self.labels, values, strict=True) if value}, float(number)


def _no_labels(_: object) -> tuple[str, ...]:
    return ()


class EventCount:
    """How many events there were, for each combination of label values."""

    def __init__(self, declared: EventCounter | OpenGauge) -> None:
        self.declared = declared
        self._key_of: Callable[[Any], object] = attrgetter(*declared.labels) if declared.labels else _no_labels
        self._counts: Counter[object] = Counter() if declared.labels else Counter({(): 0})

    def add(self, event: Any) -> None:
        """Counts one event."""
        self._counts[self._key_of(event)] += 1

    def samples(self) -> Iterator[Sample]:
        """One sample for each series."""
        for key, count in self._counts.items():
            values = key if isinstance(key, tuple) else (key,)
            yield dict(zip(self.declared.labels, map(str, values), strict=True)), count


class OpenCount(EventCount):
    """How many are open, for each combination of label values."""

    def __init__(self, declared: OpenGauge) -> None:
        super().__init__(declared)
        self._process_of = declared.process
        self._process = ""

    def add(self, event: Any) -> None:
        """Counts a begin, or an end of something that this process began."""
        process = self._process_of(event)
        if event.opens > 0:
            self._process = process
        if process == self._process:
            self._counts[self._key_of(event)] += event.opens


class Distribution:
    """Counts of events up to each bound, the last one without a bound, and the sum of their seconds."""

    def __init__(self, declared: EventHistogram) -> None:
        self.declared = declared
        self.counts = [0] * (len(declared.bounds) + 1)
        self.sum = 0.0

    def add(self, event: Any) -> None:
        """Counts one event."""
        self.counts[bisect_left(self.declared.bounds, event.seconds)] += 1
        self.sum += event.seconds


EventMetric = EventCounter | OpenGauge | EventHistogram
EventTally = EventCount | Distribution
