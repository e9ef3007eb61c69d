"""What tests of reading share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A directory of one's own, and nobody's rights: root may read what it likes."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        root = os.geteuid() == 0
        if root:
            os.chown(path, 65534, 65534)
            os.seteuid(65534)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)
