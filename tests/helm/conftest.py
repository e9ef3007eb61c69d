"""What the chart's tests need of the machine."""

import shutil
from pathlib import Path

import pytest

from tests.helm.chart import CHART, FIXTURES
from tests.tiers import require


@pytest.fixture(autouse=True)
def needs_helm() -> None:
    """Everything here asks a real helm."""
    require("helm")


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    """A chart of somebody's own that has ours as its dependency, as `helm dependency build` would lay it out."""
    chart = tmp_path / "consumer"
    shutil.copytree(FIXTURES / "consumer", chart)
    shutil.copytree(CHART, chart / "charts" / CHART.name)
    return chart
