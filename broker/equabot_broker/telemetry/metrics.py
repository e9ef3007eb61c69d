"""Prometheus metrics. Counters and histograms hear of events; gauges are read from the running broker when somebody scrapes.

Hearing of an event costs less than a microsecond, and `prometheus_client` is not imported before `serve`.
"""

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from equabot_broker.telemetry._readings import CredentialGauge, Snapshot, SourceGauge, Tallies
from equabot_broker.telemetry.broker_events import CallerRefused
from equabot_broker.telemetry.credential_events import LoginInvalidated, ProfilesChanged, RefreshAttemptFailed, RefreshSucceeded
from equabot_broker.telemetry.events import Event
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayLogSkipped, GatewayRefused, GatewayUsed
from equabot_broker.telemetry.lease_events import AcquireAnswered, LeaseDenied, LeaseGranted, OutcomeReported

if TYPE_CHECKING:
    from equabot_broker.telemetry._health_pages import HealthReader
    from equabot_broker.telemetry._metrics_server import MetricsServer

__all__ = ["CredentialGauge", "Metrics", "Snapshot", "SourceGauge"]

_PROCESS: Final = 8
"""Characters of a request's name that are the same for all of one process."""


class Metrics:
    """Counts events (`record` is a sink for `Events`) and serves what it counted beside what `snapshot` says."""

    def __init__(self, *, version: str) -> None:
        self.version = version
        self._tallies = Tallies()
        self._process = ""
        self._heard: dict[type[Event], Callable[[Any], None]] = {
            LeaseGranted: self._granted,
            AcquireAnswered: self._answered,
            LeaseDenied: self._denied,
            CallerRefused: self._not_let_in,
            OutcomeReported: self._reported,
            GatewayAuthorized: self._authorized,
            GatewayUsed: self._used,
            GatewayRefused: self._turned_away,
            GatewayLogSkipped: self._skipped,
            ProfilesChanged: self._rotated,
            RefreshSucceeded: self._refreshed,
            RefreshAttemptFailed: self._not_refreshed,
            LoginInvalidated: self._ended,
        }

    def record(self, event: Event) -> None:
        """Counts the event, if it is one that counts. On the event loop's thread."""
        heard = self._heard.get(type(event))
        if heard is not None:
            heard(event)

    def serve(self, host: str, port: int, *, snapshot: Callable[[], Snapshot], health: "HealthReader") -> "MetricsServer":
        """Begins to answer scrapes and probes, on a thread of its own. `snapshot` and `health` are called on the running event
        loop, which has two seconds to get to them before the answer fails. Port 0: any.

        Raises CannotStart where it cannot listen.
        """
        from equabot_broker.telemetry._exposition import Exposition  # noqa: PLC0415 - 5 MiB, for those who scrape alone
        from equabot_broker.telemetry._health_pages import HealthPages  # noqa: PLC0415
        from equabot_broker.telemetry._metrics_server import MetricsServer  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        answers = HealthPages(health, version=self.version, snapshot=snapshot, loop=loop)
        exposition = Exposition(version=self.version, gather=lambda: (snapshot(), deepcopy(self._tallies)), loop=loop)
        pages = {
            "/metrics": exposition.render,
            "/healthz": answers.healthz,
            "/readyz": answers.readyz,
            "/status.json": answers.status,
        }
        return MetricsServer(host, port, pages=pages)

    def _granted(self, _: LeaseGranted) -> None:
        self._tallies.granted += 1

    def _answered(self, event: AcquireAnswered) -> None:
        self._tallies.acquire.observe(event.seconds)

    def _denied(self, event: LeaseDenied) -> None:
        self._tallies.denied[event.reason] += 1

    def _not_let_in(self, event: CallerRefused) -> None:
        self._tallies.callers[event.reason] += 1

    def _reported(self, event: OutcomeReported) -> None:
        self._tallies.outcomes[event.provider, event.outcome] += 1

    def _authorized(self, event: GatewayAuthorized) -> None:
        self._tallies.authorized[event.provider] += 1
        self._tallies.open[event.provider] += 1
        self._process = event.request[:_PROCESS]

    def _used(self, event: GatewayUsed) -> None:
        self._tallies.used[event.provider, str(event.status)] += 1
        self._tallies.gateway.observe(event.seconds)
        if event.request[:_PROCESS] == self._process:  # an earlier broker let the others through
            self._tallies.open[event.provider] -= 1

    def _turned_away(self, event: GatewayRefused) -> None:
        self._tallies.turned_away[event.provider, event.reason] += 1

    def _skipped(self, _: GatewayLogSkipped) -> None:
        self._tallies.skipped += 1

    def _rotated(self, event: ProfilesChanged) -> None:
        self._tallies.rotation.observe(event.seconds)

    def _refreshed(self, event: RefreshSucceeded) -> None:
        self._tallies.refreshes[event.provider, "adopted" if event.adopted else "refreshed"] += 1

    def _not_refreshed(self, event: RefreshAttemptFailed) -> None:
        self._tallies.refreshes[event.provider, event.outcome] += 1

    def _ended(self, event: LoginInvalidated) -> None:
        self._tallies.refreshes[event.provider, "reauth_required"] += 1
