"""The metrics' names. The only module that imports `prometheus_client`."""

import asyncio
import gzip
import logging
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from equabot_broker.telemetry._audit_anchor import ANCHOR_FAULTS
from equabot_broker.telemetry._broker_loop import WITHIN, read_on
from equabot_broker.telemetry._readings import Histogram, Snapshot, Tallies
from equabot_broker.telemetry._scrape_request import Page, Scrape
from equabot_broker.telemetry.incidents import counts

_log: Final = logging.getLogger(__name__)

Gather = Callable[[], tuple[Snapshot, Tallies]]


class Exposition:
    """Writes the metrics as a scraper wants them. `gather` runs on the broker's event loop in one go, so they fit together."""

    def __init__(self, *, version: str, gather: Gather, loop: asyncio.AbstractEventLoop) -> None:
        self._version = version
        self._gather = gather
        self._loop = loop
        self._process = ProcessCollector(registry=None)

    async def render(self, scrape: Scrape) -> Page:
        """The answer; runs on another event loop. Raises TimeoutError when the broker's does not get to it."""
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
    """The broker's own metrics, as they were read."""

    def __init__(self, version: str, snapshot: Snapshot, tallies: Tallies) -> None:
        self._version = version
        self._snapshot = snapshot
        self._tallies = tallies

    def describe(self) -> Iterator[Metric]:
        """Nothing, or registering would collect."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every family of ours."""
        yield from _gauges(self._snapshot)
        yield from _counters(self._tallies)
        yield _gauge("build_info", "The value 1, with the version of the broker as a label.", {"version": self._version}, 1)


def _gauges(snapshot: Snapshot) -> Iterator[Metric]:
    expiry = GaugeMetricFamily(
        "equabot_credential_expiry_timestamp_seconds",
        "When the credential expires, in seconds since the Unix epoch; absent for a credential without an expiry.",
    )
    state = GaugeMetricFamily(
        "equabot_credential_state", "The value 1 for the current state of the credential; other states have no sample."
    )
    for one in snapshot.credentials:
        # Only a profile of one agent says whose it is: ids are unique within an agent, and among those of every agent.
        labels = {"profile": one.profile, "provider": one.provider} | ({"agent": one.agent} if one.agent else {})
        if one.expires_at is not None:
            expiry.add_sample(expiry.name, labels, one.expires_at)
        state.add_sample(state.name, labels | {"state": one.state}, 1)
    leases = GaugeMetricFamily("equabot_leases_active", "How many leases are active.", labels=("agent", "provider"))
    for key, count in snapshot.leases.items():
        leases.add_metric(key, count)
    streams = GaugeMetricFamily("equabot_streams_active", "How many streams are open.", labels=("agent",))
    for agent, count in snapshot.streams.items():
        streams.add_metric((agent,), count)
    suspended = GaugeMetricFamily(
        "equabot_agent_suspended", "Whether an operator has suspended the agent: 1 if so, else 0.", labels=("agent",)
    )
    for agent, is_suspended in snapshot.suspended.items():
        suspended.add_metric((agent,), is_suspended)
    age = GaugeMetricFamily(
        "equabot_source_sync_age_seconds",
        "Seconds since the broker last read the source in full; absent until the first time.",
        labels=("source",),
    )
    stale = GaugeMetricFamily(
        "equabot_source_stale",
        "Whether the broker cannot read the source or a part of it: 1 if so, else 0.",
        labels=("source",),
    )
    for source in snapshot.sources:
        if source.sync_age is not None:
            age.add_metric((source.source,), source.sync_age)
        stale.add_metric((source.source,), source.stale)
    yield from (expiry, state, leases, streams, suspended, age, stale)
    yield _gauge(
        "config_last_reload_successful",
        "Whether the broker applied the configuration that it read last: 1 if so, 0 if it refused the configuration.",
        {},
        snapshot.config_reload_ok,
    )
    yield _gauge(
        "config_last_reload_success_timestamp_seconds",
        "When the broker read the configuration in effect, in seconds since the Unix epoch.",
        {},
        snapshot.config_reloaded_at,
    )
    yield _gauge("state_store_fault", "Whether the broker cannot store its state: 1 if so, else 0.", {}, snapshot.store_fault)
    yield _gauge("audit_fault", "Whether the broker cannot write the audit log: 1 if so, else 0.", {}, snapshot.audit_fault)
    anchor = GaugeMetricFamily(
        "equabot_audit_anchor_fault",
        "Whether the anchor does not confirm the audit log, for the reason in the label: 1 if so, else 0.",
        labels=("reason",),
    )
    for reason in ANCHOR_FAULTS:
        anchor.add_metric((reason,), reason in snapshot.anchor_faults)
    yield anchor
    yield _gauge(
        "audit_sequence",
        "The sequence number of the last record in the audit log; it never decreases.",
        {},
        snapshot.audit_sequence,
    )
    yield CounterMetricFamily("equabot_audit_lost", "Counts audit records that were lost.", value=snapshot.audit_lost)


def _counters(tallies: Tallies) -> Iterator[Metric]:
    granted = CounterMetricFamily("equabot_leases_granted", "Counts leases that the broker granted.", value=tallies.granted)
    denied = CounterMetricFamily(
        "equabot_leases_denied", "Counts lease requests that the broker refused, by reason.", labels=("reason",)
    )
    for reason, count in tallies.denied.items():
        denied.add_metric((reason,), count)
    callers = CounterMetricFamily(
        "equabot_callers_refused",
        "Counts network calls whose caller the broker refused, by gRPC status code.",
        labels=("reason",),
    )
    for reason, count in tallies.callers.items():
        callers.add_metric((reason,), count)
    outcomes = CounterMetricFamily(
        "equabot_outcomes",
        "Counts provider answers that agents or the gateway reported, by provider and outcome.",
        labels=("provider", "outcome"),
    )
    for key, count in tallies.outcomes.items():
        outcomes.add_metric(key, count)
    refreshes = CounterMetricFamily(
        "equabot_refreshes",
        "Counts login refreshes by outcome: refreshed, adopted (from another process), transient, uncertain, reauth_required.",
        labels=("provider", "outcome"),
    )
    for key, count in tallies.refreshes.items():
        refreshes.add_metric(key, count)
    unforeseen = CounterMetricFamily(
        "equabot_incidents",
        "Counts unexpected exceptions by the port that they came from; the log has each one.",
        labels=("port",),
    )
    for port, count in counts().items():
        unforeseen.add_metric((port,), count)
    yield from (granted, denied, callers, outcomes, refreshes, unforeseen)
    yield from _gateway_counters(tallies)
    yield _histogram(
        "gateway_request_seconds",
        "Seconds from the first byte of an authorized request to the last byte of its answer.",
        tallies.gateway,
    )
    yield _histogram("acquire_seconds", "Seconds from a lease request to its answer.", tallies.acquire)
    yield _histogram("rotation_seconds", "Seconds from a change in a source to the notice on every stream.", tallies.rotation)


def _gateway_counters(tallies: Tallies) -> Iterator[Metric]:
    authorized = CounterMetricFamily(
        "equabot_gateway_authorized",
        "Counts requests that the gateway authorized, before it sends them to the provider.",
        labels=("provider",),
    )
    for provider, count in tallies.authorized.items():
        authorized.add_metric((provider,), count)
    used = CounterMetricFamily(
        "equabot_gateway_requests",
        "Counts authorized requests that have ended, by the HTTP status of the answer; 0 means no answer.",
        labels=("provider", "status"),
    )
    for key, count in tallies.used.items():
        used.add_metric(key, count)
    turned_away = CounterMetricFamily(
        "equabot_gateway_refusals",
        "Counts requests that the gateway refused, by provider and reason.",
        labels=("provider", "reason"),
    )
    for key, count in tallies.turned_away.items():
        turned_away.add_metric(key, count)
    unended = GaugeMetricFamily(
        "equabot_gateway_requests_open",
        "How many authorized requests have no known end: they are in progress, or the entry for their end was lost.",
        labels=("provider",),
    )
    for provider, count in tallies.open.items():
        unended.add_metric((provider,), count)
    yield from (authorized, unended, used, turned_away)
    yield CounterMetricFamily(
        "equabot_gateway_log_skipped", "Counts gateway log entries that the broker could not interpret.", value=tallies.skipped
    )


def _gauge(name: str, text: str, labels: dict[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(f"equabot_{name}", text)
    family.add_sample(family.name, labels, value)
    return family


def _histogram(name: str, text: str, observed: Histogram) -> Metric:
    bounds = [*map(floatToGoString, observed.bounds), "+Inf"]
    family = HistogramMetricFamily(f"equabot_{name}", text)
    family.add_metric((), buckets=list(zip(bounds, accumulate(observed.counts), strict=True)), sum_value=observed.sum)
    return family
