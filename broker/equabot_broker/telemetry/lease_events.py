"""Events about leases."""

import logging

from equabot_broker.telemetry.events import Event, event
from equabot_broker.telemetry.metric_declarations import EventCounter, EventHistogram


@event(
    EventCounter("equabot_leases_granted_total", "Counts leases that the broker granted."),
    audit="granted",
    level=logging.DEBUG,
    granting=True,
)
class LeaseGranted(Event):
    """An agent receives a lease. It ends after `seconds` unless it is renewed."""

    agent: str
    provider: str
    profile: str
    delivery: str
    seconds: float
    session: str = ""
    lease: str = ""


@event(audit="renewed", level=logging.DEBUG, granting=True)
class LeaseRenewed(Event):
    """A lease is renewed."""

    agent: str
    provider: str
    profile: str
    session: str = ""
    lease: str = ""


@event(audit="moved", level=logging.DEBUG, granting=True)
class LeaseMoved(Event):
    """A lease moves from the profile `before` to another profile."""

    agent: str
    provider: str
    before: str
    profile: str
    session: str = ""
    lease: str = ""


@event(audit="delivered", level=logging.DEBUG, granting=True)
class MaterialDelivered(Event):
    """The stream that holds a lease receives new material of the lease's profile."""

    agent: str
    provider: str
    profile: str
    session: str = ""
    lease: str = ""


# As frequent as grants: the audit log counts them.
@event(audit="revoked", level=logging.DEBUG)
class LeaseRevoked(Event):
    """A lease ended. `reason` is the reason of the gRPC API."""

    agent: str
    provider: str
    profile: str
    reason: str
    session: str = ""
    lease: str = ""


@event(
    EventCounter("equabot_leases_denied_total", "Counts lease requests that the broker refused, by reason.", ("reason",)),
    audit="denied",
    summed=True,
)
class LeaseDenied(Event):
    """The broker refused a lease request. `reason` is that of the `BrokerError`.

    `provider` is empty if the request names no known provider. The event has nothing else of an invalid request, because the
    request can contain anything.
    """

    agent: str
    provider: str
    reason: str
    session: str = ""


# Usually the lease has ended.
@event(audit="renewal_denied", level=logging.DEBUG, summed=True)
class RenewalDenied(Event):
    """The broker did not renew a lease. `reason` is that of the `BrokerError`. `lease` is from the request, and can be the
    lease of another agent."""

    agent: str
    lease: str
    reason: str


@event(EventHistogram(
            "equabot_acquire_seconds",
            "Seconds from a lease request to its answer.",
            (
                0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                10.0, 30.0,
            )
        ), level=logging.NOTSET)  # fmt: skip
class AcquireAnswered(Event):
    """The broker answered a lease request, with a lease or a refusal, after `seconds`."""

    seconds: float


@event(
    EventCounter(
        "equabot_outcomes_total",
        "Counts provider answers that agents or the gateway reported, by provider and outcome.",
        ("provider", "outcome"),
    ),
    audit="outcome",
    level=logging.DEBUG,
    summed=True,
)
class OutcomeReported(Event):
    """An agent or the gateway reported the answer of a provider. `outcome` is a value of `Outcome`."""

    agent: str
    provider: str
    profile: str
    outcome: str
    session: str = ""
    lease: str = ""
