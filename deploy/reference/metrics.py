"""`metrics.md`: every family that a scrape of the broker shows."""

from collections.abc import Iterator
from typing import Final

from pages import literal, page, sentence, table
from prometheus_client import ProcessCollector
from prometheus_client.core import Metric

from equabot_broker.telemetry._exposition import OwnMetrics
from equabot_broker.telemetry._readings import CredentialGauge, Snapshot, SourceGauge
from equabot_broker.telemetry.metrics import Metrics

ABOUT: Final = (
    "The broker serves these metrics at `listen.metrics`, path `/metrics`, in the text format of Prometheus and in that of"
    " OpenMetrics. A counter's name ends in `_total`. A label in parentheses is absent where it does not apply."
    " What is worth an alert is in [Operate](../operate.md)."
)
UNITS: Final = {
    "_timestamp_seconds": "seconds since 1970",
    "_start_time_seconds": "seconds since 1970",
    "_seconds": "seconds",
    "_bytes": "bytes",
}


def write() -> str:
    """The page."""
    process = ProcessCollector(registry=None).collect()
    return page(
        "Metrics",
        ABOUT,
        "## The broker",
        _table(OwnMetrics("1", _snapshot(), Metrics(version="").tallies()).collect()),
        "## The process\n\nThe Prometheus client library reads these from Linux.",
        _table(iter(process)),
    )


def _table(families: Iterator[Metric]) -> str:
    rows = [
        (literal(_name(family)), family.type, _labels(family), _unit(family.name), sentence(family.documentation))
        for family in sorted(families, key=lambda family: family.name)
    ]
    return table(("metric", "type", "labels", "unit", "meaning"), rows)


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _labels(family: Metric) -> str:
    samples = [sample.labels.keys() - {"le"} for sample in family.samples]
    declared = list(dict.fromkeys([*getattr(family, "_labelnames", ()), *(n for s in family.samples for n in s.labels)]))
    return ", ".join(
        literal(name) if all(name in sample for sample in samples) else f"({literal(name)})"
        for name in declared
        if name != "le"
    )


def _unit(name: str) -> str:
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")


def _snapshot() -> Snapshot:
    """One reading of every kind, so that every label is there."""
    return Snapshot(
        credentials=(
            CredentialGauge(profile="p", provider="p", state="ok", expires_at=0.0),
            CredentialGauge(profile="p", provider="p", state="ok", expires_at=0.0, agent="a"),
        ),
        sources=(SourceGauge(source="env", sync_age=0.0, stale=False),),
    )
