"""Prometheus metrics. Counters and histograms count events; gauges are read from the running broker at each scrape.

Counting an event costs some microseconds. `prometheus_client` is not imported before `serve`.
"""

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING

from equabot_broker.telemetry import broker_events, credential_events, gateway_events, lease_events  # noqa: F401 - they declare
from equabot_broker.telemetry._readings import CredentialGauge, Snapshot, SourceGauge
from equabot_broker.telemetry.events import Event, declared_events
from equabot_broker.telemetry.metric_declarations import EventTally

if TYPE_CHECKING:
    from equabot_broker.telemetry._health_pages import HealthReader
    from equabot_broker.telemetry._metrics_server import MetricsServer

__all__ = ["CredentialGauge", "Metrics", "Snapshot", "SourceGauge"]


class Metrics:
    """Counts events (`record` is a sink for `Events`), and serves the counts and what `snapshot` returns."""

    def __init__(self, *, version: str) -> None:
        self.version = version
        kinds = declared_events()
        self._tallies: dict[str, EventTally] = {one.name: one.start() for kind in kinds for one in kind.metrics}
        self._adding = {kind: [self._tallies[one.name].add for one in kind.metrics] for kind in kinds}

    def record(self, event: Event) -> None:
        """Counts the event in the metrics of its declaration. On the event loop's thread."""
        for add in self._adding.get(type(event), ()):
            add(event)

    def tallies(self) -> list[EventTally]:
        """A copy of the counts."""
        return list(deepcopy(self._tallies).values())

    def serve(self, host: str, port: int, *, snapshot: Callable[[], Snapshot], health: "HealthReader") -> "MetricsServer":
        """Starts to answer scrapes and probes, on a thread of its own. `snapshot` and `health` are called on the running event
        loop. An answer fails if the loop does not run within two seconds. Port 0 is any free port.

        Raises CannotStart if it cannot listen.
        """
        from equabot_broker.telemetry._exposition import Exposition  # noqa: PLC0415 - 5 MiB, only for a broker that serves
        from equabot_broker.telemetry._health_pages import HealthPages  # noqa: PLC0415
        from equabot_broker.telemetry._metrics_server import MetricsServer  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        answers = HealthPages(health, version=self.version, snapshot=snapshot, loop=loop)
        exposition = Exposition(version=self.version, gather=lambda: (snapshot(), self.tallies()), loop=loop)
        pages = {
            "/metrics": exposition.render,
            "/healthz": answers.healthz,
            "/readyz": answers.readyz,
            "/status.json": answers.status,
        }
        return MetricsServer(host, port, pages=pages)
