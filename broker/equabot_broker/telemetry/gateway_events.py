"""Events about the gateway."""

import logging
from typing import ClassVar, Final

from equabot_broker.telemetry.events import Event, event
from equabot_broker.telemetry.metric_declarations import EventCounter, EventHistogram, OpenGauge

_PROCESS: Final = 8
"""The first characters of a request's name. They are the same for all requests of one broker process."""
_OPEN: Final = OpenGauge(
    "equabot_gateway_requests_open",
    "How many authorized requests have no known end: they are in progress, or the entry for their end was lost.",
    ("provider",),
    process=lambda event: event.request[:_PROCESS],
)


@event(audit="pushed", level=logging.DEBUG, granting=True)
class SecretPushed(Event):
    """An Envoy that asked for the resource by name receives a credential (secret discovery)."""

    resource: str
    provider: str
    profile: str


@event(
    EventCounter(
        "equabot_gateway_authorized_total",
        "Counts requests that the gateway authorized, before it sends them to the provider.",
        ("provider",),
    ),
    _OPEN,
    audit="authorized",
    level=logging.DEBUG,
    granting=True,
)
class GatewayAuthorized(Event):
    """The gateway authorizes a request, and Envoy then receives its credential.

    `request` names the request; the event of its end (`GatewayUsed`) has the same name. `route` is the path without its query
    and without the parts that identify one object.
    """

    opens: ClassVar[int] = 1

    agent: str
    session: str
    provider: str
    profile: str
    lease: str
    request: str
    method: str
    route: str


@event(
    EventCounter(
        "equabot_gateway_requests_total",
        "Counts authorized requests that have ended, by the HTTP status of the answer; 0 means no answer.",
        ("provider", "status"),
    ),
    EventHistogram(
        "equabot_gateway_request_seconds",
        "Seconds from the first byte of an authorized request to the last byte of its answer.",
        (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
    ),
    _OPEN,
    audit="used",
    level=logging.DEBUG,
)
class GatewayUsed(Event):
    """An authorized request has ended. `request`, `method` and `route` are those of `GatewayAuthorized`.

    `status` is the HTTP status, 0 without an answer. `sent` and `received` are the bytes of the bodies of request and answer.
    `seconds` is the time from the first byte of the request to the last byte of the answer.
    """

    opens: ClassVar[int] = -1

    agent: str
    session: str
    provider: str
    profile: str
    lease: str
    request: str
    method: str
    route: str
    status: int
    sent: int
    received: int
    seconds: float


@event(
    EventCounter(
        "equabot_gateway_refusals_total",
        "Counts requests that the gateway refused, by provider and reason.",
        ("provider", "reason"),
    ),
    audit="refused",
    summed=True,
)
class GatewayRefused(Event):
    """The gateway refused a request. `reason` is one word. `agent` and `lease` are empty if the token identifies no lease."""

    agent: str
    provider: str
    lease: str
    method: str
    route: str
    status: int
    reason: str


@event(
    EventCounter("equabot_gateway_log_skipped_total", "Counts gateway log entries that the broker could not interpret."),
    level=logging.DEBUG,
)
class GatewayLogSkipped(Event):
    """The broker could not interpret an entry of the gateway's access log."""
