"""What the README tells a newcomer to type, typed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.running import KEY, RunningBroker

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("equabot ") and "&" not in line and "brokered" not in line  # those are typed beside a gateway
]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_of_the_readme(command: list[str], shared_broker: RunningBroker, tmp_path: Path) -> None:
    """It does what the comment beside it says, beside a broker that has one key in its `.env`."""
    agent = tmp_path / "my-agent"
    agent.write_text('#!/bin/sh\necho "key $ANTHROPIC_API_KEY"\n')
    agent.chmod(0o755)
    ran = shared_broker.run(*command, PATH=f"{tmp_path}:{os.environ['PATH']}")
    if command[:2] == ["agent", "suspend"]:  # the broker is shared
        assert shared_broker.run("agent", "resume", command[2]).returncode == 0
    assert (ran.returncode, ran.stderr) == (0, "")
    told = {"models": "anthropic:dotenv", "key": KEY, "exec": f"key {KEY}", "health": "SERVING", "agent": "is suspended"}
    assert told[command[0]] in ran.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_the_readme(example: str, shared_broker: RunningBroker) -> None:
    """It runs as a program, and the headers it gets hold the key."""
    program = f"{example}\nassert headers['x-api-key'] == {KEY!r}\n"
    ran = subprocess.run(
        [sys.executable, "-c", program], env=shared_broker.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_there_is_something_to_type() -> None:
    """Else the tests above prove nothing."""
    assert len(COMMANDS) == 5
    assert len(EXAMPLES) == 1


def test_every_link_leads_somewhere() -> None:
    """A newcomer who follows one arrives."""
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert [link for link in links if not (root / link).exists()] == []
