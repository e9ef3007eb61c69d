"""The README's containers: what it has a reader type is typed."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
KEY = "sk-ant-api03-" + os.urandom(48).hex() + "AA"

pytestmark = pytest.mark.timeout(600)  # the first test waits for the images to be built


def test_an_agents_container_gets_a_lease(docker_image: str, agent_image: str, tmp_path: Path) -> None:
    """F10: another container reaches its socket, and gets a lease; the key is in neither log."""
    [block] = [each for each in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "docker run" in each]
    suffix = tmp_path.name.lower() + f"-{os.getpid()}"
    (tmp_path / "anthropic.key").write_text(KEY)
    named = {name: f"{name}-{suffix}" for name in ("main-socket", "my-broker", "my-agent")}
    elsewhere = "docker run --add-host api.anthropic.com:127.0.0.1"  # no request leaves this machine
    typed = {"make image example-agent\n": "", "sudo ": "", "docker run": elsewhere, **named}
    typed |= {"equabot-broker:dev": docker_image, "equabot-example-agent:dev": agent_image}
    for written, instead in typed.items():
        assert written in block
        block = block.replace(written, instead)
    run = ["bash", "-euo", "pipefail", "-c"]
    try:
        done = subprocess.run([*run, block], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "anthropic:mounted" in _waits_for("anthropic:mounted", "exec", named["my-broker"], "equabot", "models", "status")
        said = _waits_for('"delivery": "raw"', "logs", named["my-agent"])
        assert '"working": true' in said
        assert KEY not in said + _docker("logs", named["my-broker"])
    finally:
        _docker("rm", "--force", "--volumes", named["my-agent"], named["my-broker"])
        _docker("volume", "rm", "--force", named["main-socket"])


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def _waits_for(sought: str, *command: str) -> str:
    deadline = time.monotonic() + 60
    while sought not in (said := _docker(*command)):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    return said
