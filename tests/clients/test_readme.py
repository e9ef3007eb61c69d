"""The README's examples are programs, and run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from equabot.broker.v1 import broker_pb2 as pb
from tests.fakes.broker_servicer import FakeBroker
from tests.fakes.upstream import Upstream

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(number: int, fake: FakeBroker, upstream: Upstream) -> None:
    """As printed, as a program of its own, with a broker at the default address and a provider behind it."""
    fake.base_url = f"{upstream.url}/v1" if "openai" in EXAMPLES[number] else upstream.url
    fake.profiles = [pb.ProfileStatus(id="anthropic:work", state="ok")]
    fake.change_on_report = "sk-spare"
    upstream.accepted = {fake.secret}
    environ = os.environ | {"EQUABOT_BROKER_ADDRESS": fake.address}
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", EXAMPLES[number]]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert fake.secret not in ran.stdout
    assert len(upstream.received) == ("EquabotAuth" in EXAMPLES[number])
    assert fake.calls
    fake.wait_until(lambda: not fake.streams)


def test_there_are_examples() -> None:
    """Else the test above proves nothing."""
    assert len(EXAMPLES) == 5
