"""The metrics' names, and the server that is scraped. The only module that imports `prometheus_client`."""

import asyncio
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Coroutine, Iterator
from io import StringIO
from itertools import accumulate
from typing import Any, Final, TextIO
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from broker.domain.errors import CannotStart
from broker.telemetry._readings import Histogram, Snapshot, Tallies

_WITHIN: Final = 2.0
"""Seconds the event loop has to answer, before a scrape fails: a broker that does not turn must not look alive."""

_log: Final = logging.getLogger(__name__)

Gather = Callable[[], Coroutine[Any, Any, tuple[Snapshot, Tallies]]]


class MetricsServer:
    """Answers scrapes until it is closed. `port` is the one it listens on."""

    def __init__(self, host: str, port: int, *, version: str, gather: Gather, loop: asyncio.AbstractEventLoop) -> None:
        registry = CollectorRegistry()
        registry.register(_Broker(version, gather, loop))
        registry.register(ProcessCollector(registry=None))
        kind = _ServerV6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, make_wsgi_app(registry), kind, handler_class=_Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "no such address"
            raise CannotStart(f"cannot serve metrics on {host}:{port}: {why}. Set listen.metrics to a free address") from None
        self.port: int = self._server.server_port
        self._closing = False
        self._thread = threading.Thread(target=self._answer, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening, at once. May be called again."""
        if self._closing:
            return
        self._closing = True
        self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which then finds that it is over
        self._thread.join()
        self._server.server_close()

    def _answer(self) -> None:
        # `serve_forever` would wake up twice a second for as long as the broker lives, and take half a second to end.
        while not self._closing:
            self._server.handle_request()


class _Server(ThreadingWSGIServer):
    request_queue_size = 128  # with the inherited 5, a few who connect and say nothing make a scraper wait for seconds

    def server_bind(self) -> None:
        # The inherited way asks DNS for the host's name, which may take as long as DNS likes.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A scraper that hangs up is none of our trouble; the inherited way prints a traceback."""


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10.0  # for a scraper that does not say what it wants

    def log_message(self, *_: object) -> None:
        """A scrape is not worth a line."""

    def get_stderr(self) -> TextIO:
        """What goes wrong is said in our own log; the traceback that is written here is not wanted."""
        return StringIO()


class _Broker(Collector):
    """The broker's own metrics, read on its event loop in one go, so that they fit together."""

    def __init__(self, version: str, gather: Gather, loop: asyncio.AbstractEventLoop) -> None:
        self._version = version
        self._gather = gather
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        """Raises TimeoutError when the event loop does not get to it."""
        future = asyncio.run_coroutine_threadsafe(self._gather(), self._loop)
        try:
            snapshot, tallies = future.result(_WITHIN)
        except TimeoutError:
            future.cancel()
            _log.warning("a scrape failed: the event loop did not answer within %g s", _WITHIN)
            raise
        yield from _gauges(snapshot)
        yield from _counters(tallies)
        yield _gauge("build_info", "Which version this is; always 1.", {"version": self._version}, 1)


def _gauges(snapshot: Snapshot) -> Iterator[Metric]:
    expiry = GaugeMetricFamily("equabot_credential_expiry_timestamp_seconds", "When the credential expires, for those that do.")
    state = GaugeMetricFamily("equabot_credential_state", "1 for the state the credential is in.")
    for one in snapshot.credentials:
        # Only a profile of one agent says whose it is: ids are unique within an agent, and among those of every agent.
        labels = {"profile": one.profile, "provider": one.provider} | ({"agent": one.agent} if one.agent else {})
        if one.expires_at is not None:
            expiry.add_sample(expiry.name, labels, one.expires_at)
        state.add_sample(state.name, labels | {"state": one.state}, 1)
    leases = GaugeMetricFamily("equabot_leases_active", "Living leases.", labels=("agent", "provider"))
    for key, count in snapshot.leases.items():
        leases.add_metric(key, count)
    streams = GaugeMetricFamily("equabot_streams_active", "Open streams.", labels=("agent",))
    for agent, count in snapshot.streams.items():
        streams.add_metric((agent,), count)
    age = GaugeMetricFamily("equabot_source_sync_age_seconds", "Since the source was last read in full.", labels=("source",))
    stale = GaugeMetricFamily(
        "equabot_source_stale", "1 while the source, or a part of it, cannot be read.", labels=("source",)
    )
    for source in snapshot.sources:
        if source.sync_age is not None:
            age.add_metric((source.source,), source.sync_age)
        stale.add_metric((source.source,), source.stale)
    yield from (expiry, state, leases, streams, age, stale)
    yield _gauge("state_store_fault", "1 while state cannot be stored.", {}, snapshot.store_fault)
    yield _gauge("audit_fault", "1 while nothing can be recorded.", {}, snapshot.audit_fault)
    yield _gauge("audit_sequence", "Number of the audit log's last record. It never falls.", {}, snapshot.audit_sequence)
    yield CounterMetricFamily("equabot_audit_lost", "What was never recorded.", value=snapshot.audit_lost)


def _counters(tallies: Tallies) -> Iterator[Metric]:
    granted = CounterMetricFamily("equabot_leases_granted", "Leases granted.", value=tallies.granted)
    denied = CounterMetricFamily("equabot_leases_denied", "Requests for a lease that were refused.", labels=("reason",))
    for reason, count in tallies.denied.items():
        denied.add_metric((reason,), count)
    callers = CounterMetricFamily("equabot_callers_refused", "Calls over the network that were not let in.", labels=("reason",))
    for reason, count in tallies.callers.items():
        callers.add_metric((reason,), count)
    outcomes = CounterMetricFamily(
        "equabot_outcomes", "How providers answered, as agents reported it.", labels=("provider", "outcome")
    )
    for key, count in tallies.outcomes.items():
        outcomes.add_metric(key, count)
    refreshes = CounterMetricFamily(
        "equabot_refreshes",
        "How refreshes of logins ended: refreshed, adopted (from another process), transient, uncertain, reauth_required.",
        labels=("provider", "outcome"),
    )
    for key, count in tallies.refreshes.items():
        refreshes.add_metric(key, count)
    yield from (granted, denied, callers, outcomes, refreshes)
    yield from _gateway_counters(tallies)
    yield _histogram("acquire_seconds", "From a request for a lease to its answer.", tallies.acquire)
    yield _histogram("rotation_seconds", "From a source's change to the notice in every stream.", tallies.rotation)


def _gateway_counters(tallies: Tallies) -> Iterator[Metric]:
    used = CounterMetricFamily(
        "equabot_gateway_requests",
        "Requests that the gateway let pass, by the status of the answer; 0: none came.",
        labels=("provider", "status"),
    )
    for key, count in tallies.used.items():
        used.add_metric(key, count)
    turned_away = CounterMetricFamily(
        "equabot_gateway_refusals", "Requests that the gateway did not let pass.", labels=("provider", "reason")
    )
    for key, count in tallies.turned_away.items():
        turned_away.add_metric(key, count)
    yield from (used, turned_away)
    yield CounterMetricFamily(
        "equabot_gateway_log_skipped", "Entries of the gateway's log that made no sense.", value=tallies.skipped
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
