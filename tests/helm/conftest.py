"""What the chart's tests need of the machine."""

import pytest

from tests.tiers import require


@pytest.fixture(autouse=True)
def needs_helm() -> None:
    """Everything here asks a real helm."""
    require("helm")
