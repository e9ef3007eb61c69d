"""deploy/compose, as it is: broker, gateway and example agent brought up by Compose itself."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import reduce
from pathlib import Path
from socket import AF_INET
from typing import Any, Final
from urllib.error import HTTPError

import docker
import psutil
import pytest
import yaml

from tests.containers.pod import BROKER_ID
from tests.fakes.upstream import Upstream
from tests.ports import free_port
from tests.tiers import absent

pytestmark = pytest.mark.timeout(600)  # the first test waits for the images to be built

PLACE: Final = Path(__file__).parents[2] / "deploy" / "compose"


def _compose() -> list[str]:
    for command in (["docker-compose"], ["docker", "compose"]):
        with suppress(OSError):
            if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
                return command
    return absent("docker", "no Compose; deploy/ci/docker installs one")


class Project:
    """What Compose runs, under a name of its own."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._command = command
        self._environ = environ
        self.page_url = f"http://127.0.0.1:{environ['AGENT_PORT']}/"

    def run(self, *arguments: str) -> str:
        """A command of Compose, which has to succeed."""
        done = subprocess.run(
            [*self._command, *arguments], env=self._environ, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def page(self) -> dict[str, Any]:
        """What the agent shows; nothing while there is no page."""
        with suppress(OSError):
            try:
                answer = urllib.request.urlopen(self.page_url, timeout=5)
            except HTTPError as error:
                answer = error
            with answer:
                shown: dict[str, Any] = json.loads(answer.read())
            return shown
        return {}

    def wait_until(self, happened: Callable[[], bool]) -> None:
        """Returns once it has happened."""
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline, self.run("logs", "--no-color")
            time.sleep(0.02)


@pytest.fixture
def provider() -> Iterator[Upstream]:
    """Where containers reach it: on every address of this machine."""
    with Upstream(host="0.0.0.0") as running:
        yield running


def configuration(provider: Upstream) -> str:
    """The configuration of Compose, with a provider on this machine."""
    # Not from the Engine: an engine that has never been restarted does not report its bridge's own address.
    gateway = next(a.address for a in psutil.net_if_addrs()["docker0"] if a.family == AF_INET)
    config = yaml.safe_load((PLACE / "equabot.yaml").read_text())
    config["providers"] = {"anthropic": {"base_url": f"http://{gateway}:{provider.port}"}}
    return yaml.safe_dump(config)


@pytest.fixture
def environ(docker_image: str, agent_image: str, envoy_image: str) -> dict[str, str]:
    """The images of this working tree, under names of the tests, and a port for the agent's page."""
    port = str(free_port())
    return os.environ | {
        "COMPOSE_PROJECT_NAME": f"equabot-test-{port}",
        "EQUABOT_IMAGE": docker_image,
        "AGENT_IMAGE": agent_image,
        "ENVOY_IMAGE": envoy_image,
        "AGENT_PORT": port,
        "AGENT_PERIOD": "0.1",
    }


@pytest.fixture
def project(environ: dict[str, str], provider: Upstream, tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "equabot.yaml").write_text(configuration(provider))
    (tmp_path / "secrets").mkdir()
    os.chown(tmp_path / "secrets", BROKER_ID, BROKER_ID)
    environ |= {"EQUABOT_CONFIG_FILE": str(tmp_path / "equabot.yaml"), "EQUABOT_SECRETS": str(tmp_path / "secrets")}
    made = Project([*_compose(), "--file", str(PLACE / "compose.yaml")], environ)
    try:
        made.run("up", "--detach")
        yield made
    finally:
        made.run("down", "--volumes", "--timeout", "20")


def test_three_containers_and_one_key(project: Project, provider: Upstream, tmp_path: Path) -> None:
    """Without a key the agent is told so; with one in the mounted directory it works through the gateway. The key is in no
    environment, log or file of agent and gateway; each has the one socket that is its own, and everybody ends when asked.
    T1: also with a Docker Engine that was never restarted."""
    key = "sk-ant-api03-" + os.urandom(48).hex()
    project.wait_until(lambda: "NO_USABLE_PROFILE" in project.page().get("error", ""))
    file = tmp_path / "secrets" / "ANTHROPIC_API_KEY"
    (tmp_path / "new").write_text(key)
    os.chown(tmp_path / "new", BROKER_ID, BROKER_ID)
    (tmp_path / "new").chmod(0o600)
    (tmp_path / "new").rename(file)
    project.wait_until(lambda: project.page().get("status") == 200)
    assert (project.page()["profile"], project.page()["delivery"]) == ("anthropic:mounted", "brokered")
    assert provider.received[-1].secret() == key
    assert provider.received[-1].path == "/v1/models"

    sockets = {"agent": "/run/equabot/main/broker.sock", "gateway": "/run/equabot/gateway/control.sock"}
    for service, socket in sockets.items():
        look = "find / -path /proc -prune -o -type s -print 2>/dev/null; env; ls /run/secrets"
        seen = project.run("exec", "-T", service, "sh", "-c", f"{look} 2>/dev/null; true")
        assert [line for line in seen.splitlines() if line.endswith(".sock") and line.startswith("/")] == [socket]
        assert key not in seen
        assert "ANTHROPIC_API_KEY" not in seen
    assert "anthropic:mounted" in project.run("exec", "-T", "broker", "equabot", "models", "status")
    assert key not in project.run("logs", "--no-color")

    project.run("stop", "--timeout", "30")
    ended = project.run("ps", "--quiet", "--all").split()
    assert len(ended) == 3
    containers = [docker.from_env().containers.get(each).attrs for each in ended]
    assert {container["State"]["ExitCode"] for container in containers} == {0}
    for container in containers:  # S27: none may take all of the machine's memory or process ids
        host = container["HostConfig"]
        assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (256 << 20, 256 << 20, 128)


@pytest.mark.parametrize("page", ["docs/how-to/install.md", "deploy/compose/compose.yaml"])
def test_what_the_page_has_a_reader_type(page: str, environ: dict[str, str], provider: Upstream, tmp_path: Path) -> None:
    """F10: the lines as they are written, in a clone. The agent's container gets a lease, and works with it."""
    key = "sk-ant-api03-" + os.urandom(48).hex()
    lines = typed(page)
    assert lines[0] == "make image example-agent"  # `environ` has made them
    shutil.copytree(PLACE, tmp_path / "deploy/compose", ignore=shutil.ignore_patterns("secrets"))
    (tmp_path / "deploy/compose/equabot.yaml").write_text(configuration(provider))
    (tmp_path / "anthropic.key").write_text(key)
    project = Project([*_compose(), "--file", str(tmp_path / "deploy/compose/compose.yaml")], environ)
    here = {
        "sudo ": "",
        "docker compose ": f"{' '.join(_compose())} ",
        " exec ": " exec -T ",
        ":8080/": f":{environ['AGENT_PORT']}/",
    }
    try:
        for line in lines[1:]:
            if "curl" in line or " exec " in line:
                project.wait_until(lambda: project.page().get("status") == 200)
            script = reduce(lambda text, written: text.replace(written, here[written]), here, line)
            done = subprocess.run(["sh", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        assert "anthropic:mounted" in done.stdout
        assert project.page()["delivery"] == "brokered"
        assert provider.received[-1].secret() == key
    finally:
        project.run("down", "--volumes", "--timeout", "20")


def typed(page: str) -> list[str]:
    """The commands in the block of the page that starts the images by Compose; in a comment, without what explains them."""
    text = (PLACE.parents[1] / page).read_text()
    if page.endswith(".yaml"):
        return [line.removeprefix("#   ").partition("  #")[0].strip() for line in text.splitlines() if line.startswith("#   ")]
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    [block] = [each for each in blocks if "docker compose" in each]
    return block.splitlines()
