"""Hosts for commands."""

from pathlib import Path

import pytest

from tests.fakes.host import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host without a broker, a configuration or a credential."""
    return Host(tmp_path, monkeypatch)
