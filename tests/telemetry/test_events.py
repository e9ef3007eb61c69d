"""Events: typed, frozen, told to every sink, in order."""

from dataclasses import FrozenInstanceError, fields

import pytest

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.telemetry.broker_events import Draining, StoreFaulted, StoreRecovered
from equabot_broker.telemetry.credential_events import SourceRecovered
from equabot_broker.telemetry.events import Event, Events, declared_events
from equabot_broker.telemetry.lease_events import LeaseGranted

GRANTED = LeaseGranted(agent="main", provider="anthropic", profile="anthropic:env", delivery="raw", seconds=900.0)


def test_every_sink_hears_every_event_in_order() -> None:
    """Sinks are called in line, in the order in which they were given, also those that came later."""
    heard: list[tuple[str, Event]] = []
    events = Events(lambda event: heard.append(("first", event)))
    events.sinks.append(lambda event: heard.append(("second", event)))
    events.emit(GRANTED)
    events.emit(StoreRecovered())
    assert heard == [("first", GRANTED), ("second", GRANTED), ("first", StoreRecovered()), ("second", StoreRecovered())]


def test_without_sinks_nothing_happens() -> None:
    """The engine emits whether or not somebody listens."""
    Events().emit(GRANTED)


def test_an_event_does_not_change() -> None:
    """What a sink was told stays true of that moment."""
    with pytest.raises(FrozenInstanceError):
        GRANTED.agent = "other"  # type: ignore[misc]


def test_different_events_are_never_equal() -> None:
    """A test that compares whole events cannot mistake one kind for another."""
    events: list[Event] = [StoreFaulted(fault="x"), SourceRecovered(source="x"), Draining(reason="x")]
    assert len(set(events)) == 3
    assert LeaseGranted(agent="main", provider="anthropic", profile="anthropic:env", delivery="raw", seconds=900.0) == GRANTED


def test_no_event_can_carry_a_secret() -> None:
    """Names travel, values stay: every field is a text, a number, a truth or a tuple of texts, and none is a SecretValue."""
    assert len(declared_events()) >= 14
    for kind in declared_events():
        for field in fields(kind):
            assert field.type in (str, int, float, bool, tuple[str, ...]), f"{kind.__name__}.{field.name}"
            assert field.type is not SecretValue
