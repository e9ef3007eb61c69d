"""Events in the log: named in words, with their fields, loud where somebody should act."""

import logging
from dataclasses import fields

import pytest

from equabot_broker.telemetry.broker_events import StoreFaulted
from equabot_broker.telemetry.credential_events import (
    CredentialStateChanged,
    LoginInvalidated,
    RefreshAttemptFailed,
    RefreshSucceeded,
    SourceDoubted,
    SourceStale,
)
from equabot_broker.telemetry.event_log import log_event
from equabot_broker.telemetry.events import Event, declared_events
from equabot_broker.telemetry.lease_events import AcquireAnswered, LeaseDenied, LeaseGranted, RenewalDenied

GRANTED = LeaseGranted(agent="main", provider="anthropic", profile="anthropic:env", delivery="raw", seconds=900.0)


def state(after: str) -> CredentialStateChanged:
    return CredentialStateChanged(profile="anthropic:env", provider="anthropic", before="ok", after=after, reason="it says so")


def test_an_event_is_a_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    """The class's name in words is the message, its fields are the record's."""
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        log_event(GRANTED)
    record = caplog.records[0]
    assert (record.name, record.getMessage()) == ("equabot.events", "lease granted")
    assert {name: vars(record)[name] for name in ("agent", "provider", "profile", "delivery", "seconds")} == {
        "agent": "main", "provider": "anthropic", "profile": "anthropic:env", "delivery": "raw", "seconds": 900.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (GRANTED, logging.DEBUG),
        (LeaseDenied(agent="main", provider="anthropic", reason="POLICY_DENIED"), logging.INFO),
        (SourceDoubted(source="env", faults=("a", "b")), logging.WARNING),
        (SourceStale(source="env", fault="gone"), logging.WARNING),
        (StoreFaulted(fault="full"), logging.ERROR),
        (RefreshSucceeded(profile="acme:me", provider="acme", adopted=False, seconds=0.3), logging.INFO),
        (
            RefreshAttemptFailed(profile="acme:me", provider="acme", outcome="transient", reason="503", retry_in=2.0),
            logging.WARNING,
        ),
        (LoginInvalidated(profile="acme:me", provider="acme", reason="invalid_grant", command="log in"), logging.ERROR),
        (state("ok"), logging.INFO),
        (state("expiring"), logging.WARNING),
        (state("rejected"), logging.WARNING),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else None,
)
def test_the_level_says_whether_somebody_should_act(event: Event, level: int, caplog: pytest.LogCaptureFixture) -> None:
    """What happens with every request is for debugging, what an operator has to mend is a warning."""
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        log_event(event)
    assert [record.levelno for record in caplog.records] == [level]


def test_what_is_only_a_number_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Durations of single requests belong to the metrics."""
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        log_event(AcquireAnswered(seconds=0.001))
    assert caplog.records == []


def test_every_kind_of_event_can_be_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No field of an event collides with what a log record already has."""
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        for kind in declared_events():
            samples = {"str": "x", "int": 1, "float": 1.0}
            log_event(kind(**{field.name: samples.get(getattr(field.type, "__name__", ""), ("x",)) for field in fields(kind)}))
    assert len(caplog.records) == len(declared_events()) - 1


def test_no_lease_is_told_by_its_id(caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the log learns who did what, and nothing that a renewal or a report could be made with."""
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        log_event(RenewalDenied(agent="main", lease="0193c0ffee", reason="LEASE_NOT_FOUND"))
    assert not hasattr(caplog.records[0], "lease")
    assert "0193c0ffee" not in str(vars(caplog.records[0]))


def test_no_session_is_told_by_its_name(caplog: pytest.LogCaptureFixture) -> None:
    """It is whatever an agent calls it, and nobody can see in it a secret of no vendor's form."""
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        log_event(LeaseDenied(agent="main", provider="anthropic", reason="LEASE_LIMIT", session="talk-1"))
    assert "talk-1" not in str(vars(caplog.records[0]))
