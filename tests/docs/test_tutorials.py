"""The tutorials are done, from the first step to the last: with providers on loopback, or against a real API server.

A block ```sh is run, ```sh serve is what runs from then on, a block with the name of a file is written there. Blocks
```sh install, ```sh images and ```sh pod need what a test does not have: an index of packages, a registry, a kubelet.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.docs.test_operate import KEYS
from tests.docs.test_operate import Reader as ClusterReader
from tests.fakes.upstream import Upstream
from tests.gateway.running import Gateway
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.kubernetes.api import Api
from tests.tiers import program, require

ROOT = Path(__file__).parents[2]
LOCAL_KEY = "local-" + "k3y0" * 8
CLAUDE = """#!/bin/sh
curl -fsS "$ANTHROPIC_BASE_URL/v1/messages" \\
  -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -H "content-type: application/json" -d '{}'
"""


class Block(NamedTuple):
    """A fenced block: the words after its fence, and its text."""

    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of a tutorial, in their order."""
    text = (ROOT / "docs" / "tutorials" / f"{page}.md").read_text()
    return [Block(*found) for found in re.findall(r"```([a-z]+(?: [^\n]+)?)\n(.*?)```", text, re.DOTALL)]


class Reader(Gateway):
    """Follows a tutorial, on a host whose `claude` is a script. Only addresses of providers differ from the page."""

    def __init__(self, vendor: Upstream) -> None:
        super().__init__(vendor, mode="off", dotenv="")
        tools = self.home / "bin"
        tools.mkdir()
        scripts = {"equabot": f'#!/bin/sh\nexec {sys.executable} -m equabot_broker "$@"\n', "claude": CLAUDE}
        scripts["python"] = f'#!/bin/sh\nexec {sys.executable} "$@"\n'
        for name, script in scripts.items():
            (tools / name).write_text(script)
            (tools / name).chmod(0o755)
        (tools / "envoy").symlink_to(str(program("envoy")))
        for name, key in {"anthropic.key": KEY, "new-anthropic.key": OTHER_KEY, "local.key": LOCAL_KEY}.items():
            (self.home / name).write_text(f"{key}\n")
        self.environ |= {"PATH": f"{tools}:{os.environ['PATH']}", "EQUABOT_HOME": str(self.home / ".equabot")}

    def follows(self, block: Block) -> str:
        """Does what one block says. Returns what it printed."""
        language, _, words = block.kind.partition(" ")
        match language, words:
            case "sh", "serve":
                self.command = block.text.split()
                self.start()
            case "sh", "install":
                return ""
            case "sh", _:
                return self._runs(block.text)
            case "yaml", _:
                self._file(words).write_text(self._adapted(block.text))
            case _:
                self._file(words).write_text(block.text)
        return ""

    def _file(self, name: str) -> Path:
        return self.home / name.removeprefix("~/")

    def _adapted(self, text: str) -> str:
        config = yaml.safe_load(text.replace("127.0.0.1:8000", f"127.0.0.1:{self.vendor.port}"))
        config.setdefault("providers", {}).setdefault("anthropic", {})["base_url"] = self.vendor.url
        return yaml.safe_dump(config)

    def _runs(self, script: str) -> str:
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            cwd=self.home,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        assert not [key for key in (KEY, OTHER_KEY, LOCAL_KEY) if key in done.stdout + done.stderr]
        return done.stdout


@pytest.fixture
def reader() -> Iterator[Reader]:
    with Upstream() as vendor:
        follower = Reader(vendor)
        yield follower
        follower.close()


def test_laptop(reader: Reader) -> None:
    """Three agents get answers without a key, a rotation reaches the provider, and one agent is stopped alone."""
    shown = {}
    for block in blocks("laptop"):
        shown[block.text] = reader.follows(block)
        if block.kind == "sh rotate":
            reader.wait_for(lambda: _sends(reader, OTHER_KEY))
    printed = "".join(shown.values())
    assert "SERVING" in printed
    assert "anthropic:dotenv" in printed
    assert {request.secret() for request in reader.vendor.received} == {KEY, OTHER_KEY, LOCAL_KEY}
    [stopping] = [text for script, text in shown.items() if "suspend" in script]
    assert "refused\n" in stopping
    assert '"text": "hello"' in stopping.partition("refused\n")[2]


def _sends(reader: Reader, key: str) -> bool:
    """Whether a request that is made now carries the key."""
    reader.follows(Block("sh", "equabot exec anthropic --agent script -- python hello_anthropic.py"))
    return reader.vendor.received[-1].secret() == key


def test_gateway(reader: Reader) -> None:
    """What is listed passes, what is not is refused before the provider, and a revoked or suspended token is worth nothing."""
    (keys,) = [block for block in blocks("laptop") if "LOCAL_API_KEY=%s" in block.text]
    reader.follows(keys)
    shown = {block.text: reader.follows(block) for block in blocks("gateway")}
    [variables, allowed, refused, revoked, suspended] = [text for script, text in shown.items() if "equabot" in script and text]
    assert "ANTHROPIC_API_KEY=eqb_" in variables
    assert f"ANTHROPIC_BASE_URL={reader.url}/anthropic" in variables
    assert "claude" in allowed
    assert "403" in refused.splitlines()[0]
    assert "x-equabot-reason: POLICY_DENIED" in refused
    assert {request.path for request in reader.vendor.received} == {"/v1/models"}
    assert "reviewer" in revoked
    token = json.loads((reader.home / "lease.json").read_text())["secret"]
    assert reader.ask(token).reason == "LEASE_NOT_FOUND"
    assert "refused" in suspended


def test_first_pod(cluster: Api, tmp_path: Path) -> None:
    """Not ready without the Secret, ready with it, a rotation is followed, the gateway is in the configuration."""
    require("helm")
    install, unready, create, rotate, gateway, remove = [block.text for block in blocks("first-pod") if block.kind == "sh"]
    follower = ClusterReader(cluster, tmp_path, namespace="first-pod")
    follower.stand_in(RunningBroker(credentials={}, dotenv="", config=""))
    follower.does(install)
    broker = follower.pod()
    try:
        assert "not ready yet" in follower.does(unready)
        assert "anthropic:equabot-credentials" in follower.does(create)
        follower.does(rotate)
        broker.wait_for(lambda: broker.run("key", "anthropic").stdout.strip() == KEYS["new-key.txt"])
        follower.does(gateway)
        stored = cluster.get("ConfigMap", "demo-equabot-broker", namespace="first-pod")["data"]["equabot.yaml"]
        assert yaml.safe_load(stored)["gateway"]["mode"] == "sidecar"
        follower.does(remove)
    finally:
        broker.close()
