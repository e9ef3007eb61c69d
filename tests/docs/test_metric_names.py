"""A document, an alert or a panel names only metrics that the broker has."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from equabot_broker.telemetry.events import declared_events
from equabot_broker.telemetry.metrics import Snapshot

ROOT: Final = Path(__file__).parents[2]
REFERENCE: Final = frozenset(
    re.findall(r"^\| `(equabot_\w+)` \|", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
)
"""The names that a scrape shows: tests/docs/test_reference.py compares the page with the declarations."""
PACKAGES: Final = r"(?:broker|cli|client)\b"
NAME: Final = re.compile(rf"(?<![\w/.-])equabot_(?!{PACKAGES})[a-z]\w+?(?=(?:_bucket|_sum|_count)?\b)")
FILES: Final = sorted(
    path
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "helm").rglob("*"), *(ROOT / "deploy").rglob("*"))
    if path.suffix in {".md", ".json", ".yaml", ".tpl", ".txt"} and not {"assets", "adr", "reference", "ci"} & {*path.parts}
)


def _named() -> Iterator[tuple[str, str]]:
    for path in FILES:
        for name in {*NAME.findall(path.read_text())}:
            yield str(path.relative_to(ROOT)), name


@pytest.mark.parametrize(("file", "name"), sorted(_named()))
def test_a_metric_that_is_named_exists(file: str, name: str) -> None:
    """A renamed metric is renamed everywhere."""
    assert name in REFERENCE, f"{file} names {name}, which docs/reference/metrics.md does not have"


def test_a_metric_has_one_declaration() -> None:
    """Events that share a metric share its declaration, and each name is on the reference page."""
    of_events = {metric for kind in declared_events() for metric in kind.metrics}
    declared = [*of_events, *(metric for metric, _ in Snapshot().readings())]
    names = [metric.name for metric in declared]
    assert len(names) > 20
    assert sorted(names) == sorted(set(names))
    assert set(names) <= REFERENCE


def test_a_label_of_an_event_is_an_attribute_of_it() -> None:
    """Otherwise the first event fails to be counted."""
    missing = [
        (kind.__name__, metric.name, label)
        for kind in declared_events()
        for metric in kind.metrics
        for label in getattr(metric, "labels", ("seconds",))
        if not hasattr(kind, label)
    ]
    assert missing == []
