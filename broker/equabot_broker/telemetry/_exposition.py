"""The metrics in the formats of Prometheus. The only module that imports `prometheus_client`."""

import asyncio
import gzip
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from equabot_broker.telemetry._broker_loop import WITHIN, read_on
from equabot_broker.telemetry._readings import Snapshot
from equabot_broker.telemetry._scrape_request import Page, Scrape
from equabot_broker.telemetry.incidents import counts
from equabot_broker.telemetry.metric_declarations import Distribution, EventCounter, EventTally, OpenGauge, ReadMetric, Sample

_log: Final = logging.getLogger(__name__)

Gather = Callable[[], tuple[Snapshot, Sequence[EventTally]]]

_BUILD: Final = ReadMetric("equabot_build_info", "The value 1, with the version of the broker as a label.", ("version",))
_INCIDENTS: Final = ReadMetric(
    "equabot_incidents_total",
    "Counts unexpected exceptions by the port that they came from; the log has each one.",
    ("port",),
)


class Exposition:
    """Writes the metrics in the format that the scraper asks for. `gather` runs on the broker's event loop in one step, so the
    values are consistent."""

    def __init__(self, *, version: str, gather: Gather, loop: asyncio.AbstractEventLoop) -> None:
        self._version = version
        self._gather = gather
        self._loop = loop
        self._process = ProcessCollector(registry=None)

    async def render(self, scrape: Scrape) -> Page:
        """The answer. Runs on another event loop. Raises TimeoutError if the broker's loop does not run."""
        try:
            snapshot, tallies = await read_on(self._loop, self._gather)
        except TimeoutError:
            _log.warning("a scrape failed: the event loop did not answer within %g s", WITHIN)
            raise
        registry = CollectorRegistry()
        registry.register(OwnMetrics(self._version, snapshot, tallies))
        registry.register(self._process)
        encode, kind = choose_encoder(scrape.accept)
        body = encode(registry)
        if gzip_accepted(scrape.accept_encoding):
            return Page("200 OK", (f"Content-Type: {kind}", "Content-Encoding: gzip"), gzip.compress(body, 1))
        return Page("200 OK", (f"Content-Type: {kind}",), body)


class OwnMetrics(Collector):
    """The broker's own metrics at one instant."""

    def __init__(self, version: str, snapshot: Snapshot, tallies: Sequence[EventTally]) -> None:
        self._version = version
        self._snapshot = snapshot
        self._tallies = tallies

    def describe(self) -> Iterator[Metric]:
        """Nothing: otherwise a registration collects."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every family of the broker."""
        for metric, state in self._snapshot.readings():
            yield _read(metric, state)
        for tally in self._tallies:
            yield _distribution(tally) if isinstance(tally, Distribution) else _family(tally.declared, tally.samples())
        yield _read(_INCIDENTS, counts())
        yield _read(_BUILD, {self._version: 1})


def _read(metric: ReadMetric, state: object) -> Metric:
    return _family(metric, metric.samples(state))


def _family(declared: EventCounter | OpenGauge | ReadMetric, samples: Iterable[Sample]) -> Metric:
    kind = CounterMetricFamily if declared.name.endswith("_total") else GaugeMetricFamily
    family = kind(declared.name, declared.help, labels=declared.labels)
    for labels, value in samples:
        family.add_sample(declared.name, labels, value)
    return family


def _distribution(tally: Distribution) -> Metric:
    bounds = [*map(floatToGoString, tally.declared.bounds), "+Inf"]
    family = HistogramMetricFamily(tally.declared.name, tally.declared.help)
    family.add_metric((), buckets=list(zip(bounds, accumulate(tally.counts), strict=True)), sum_value=tally.sum)
    return family
