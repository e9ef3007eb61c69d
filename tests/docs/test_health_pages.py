"""The probe over HTTP that the page on operation shows, run against a broker."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.running import RunningBroker

PAGE = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()


@pytest.fixture
def broker() -> Iterator[RunningBroker]:
    running = RunningBroker(credentials={}, dotenv="", config="").start()
    yield running
    running.close()


def test_the_probe_on_the_page_succeeds_once_the_broker_is_ready(broker: RunningBroker) -> None:
    """With the address of this broker in the place of the default."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    [command] = re.findall(r"^curl .*127\.0\.0\.1:9464/readyz$", PAGE, re.MULTILINE)
    arguments = command.replace("127.0.0.1:9464", broker.metrics).split()
    probe = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (probe.returncode, probe.stdout) == (0, "ready\n")
