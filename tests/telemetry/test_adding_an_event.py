"""The example in CONTRIBUTING.md: one declaration is an event that is logged, recorded, counted and documented."""

import json
import logging
import runpy
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry

from equabot_broker.telemetry import events
from equabot_broker.telemetry._exposition import OwnMetrics
from equabot_broker.telemetry.audit_log import AuditLog, audit_output
from equabot_broker.telemetry.event_log import log_event
from equabot_broker.telemetry.events import Event, Events
from equabot_broker.telemetry.metrics import Metrics, Snapshot
from tests.fakes.clock import FakeClock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Event]:
    """The class of the example, which only this test knows."""
    monkeypatch.setattr(events, "_DECLARED", list(events.declared_events()))
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    module = tmp_path / "example_events.py"
    module.write_text(guide.partition("### An event")[2].partition("```python\n")[2].partition("```")[0])
    found: type[Event] = runpy.run_path(str(module))["OrderOverridden"]
    return found


def test_the_log_the_audit_log_and_the_metrics_have_it(
    example: type[Event], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each as the event declares."""
    clock, metrics = FakeClock(), Metrics(version="1")
    audit = AuditLog(
        audit_output(tmp_path / "audit.jsonl", patient=False),
        anchor=tmp_path / "audit.head",
        key=b"k" * 32,
        version="1",
        fail_closed=False,
        served=False,
        now=clock.now,
        steady=clock.steady,
        clean=str,
    )
    audit.begin()
    values = {"agent": "main", "provider": "anthropic"}
    with caplog.at_level(logging.DEBUG, "equabot.events"):
        Events(audit.record, log_event, metrics.record).emit(example(**values))
    audit.close()

    (logged,) = (record for record in caplog.records if record.name == "equabot.events")
    assert (logged.levelname, logged.getMessage()) == ("WARNING", "order overridden")
    assert {name: vars(logged)[name] for name in values} == values
    _, recorded, _ = map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())
    assert {name: recorded[name] for name in ("kind", *values)} == {"kind": "order_overridden", **values}
    assert 'equabot_order_overrides_total{provider="anthropic"} 1.0' in scrape(metrics)


def test_the_reference_lists_its_metric(example: type[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the help and the labels."""
    assert example.metrics
    monkeypatch.syspath_prepend(ROOT / "deploy" / "reference")
    page = runpy.run_path(str(ROOT / "deploy" / "reference" / "metrics.py"))["write"]()
    (row,) = (line for line in page.splitlines() if line.startswith("| `equabot_order_overrides_total`"))
    assert "`provider`" in row
    assert "Counts order overrides, by provider." in row


def scrape(metrics: Metrics) -> str:
    """What Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(OwnMetrics("1", Snapshot(), metrics.tallies()))
    return generate_latest(registry).decode()
