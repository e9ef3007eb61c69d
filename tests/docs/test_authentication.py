"""The page on authentication: its commands are run in their order, its example is a program, every test that it names is there.

A block ```sh is run as it is; ```sh tty is typed by a person; ```sh root is for a host of one's own, ```yaml for a cluster, and
both are only looked at.
"""

import ast
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

from tests.fakes.terminal import Person
from tests.journeys.running import RunningBroker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "authentication.md").read_text()
KEY = "sk-ant-api03-" + "d0cs" * 24
TOKEN = "sk-ant-oat01-" + "d0cs" * 24
SECRETS = {
    "anthropic.key": KEY,
    "openai.key": "sk-proj-" + "d0cs" * 12,
    "openrouter.key": "sk-or-v1-" + "d0cs" * 12,
    "token": TOKEN,
}
LOGIN = json.dumps(
    {"claudeAiOauth": {"accessToken": TOKEN, "refreshToken": "sk-ant-ort01-d0cs", "expiresAt": 4_102_444_800_000}}
)


class Block(NamedTuple):
    """A fenced block: what stands behind its fence, and in it."""

    kind: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"```([a-z ]+)\n(.*?)```", PAGE, re.DOTALL)]
ROWS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)` \|$", PAGE, re.MULTILINE)


class Reader:
    """Somebody who does what the page says, on a host whose `claude` is a stand-in."""

    def __init__(self, broker: RunningBroker) -> None:
        self.broker = broker
        self.home = broker.home / "reader"
        self.here = broker.home / "here"
        tools = broker.home / "bin"
        for folder in (self.home, self.here, tools):
            folder.mkdir()
        for name, secret in SECRETS.items():
            (self.here / name).write_text(f"{secret}\n")
        self._tool(tools / "equabot", f'exec {sys.executable} -m equabot_broker "$@"')
        login = f"mkdir -p ~/.claude && umask 077 && echo '{LOGIN}' > ~/.claude/.credentials.json"
        self._tool(tools / "claude", f'[ "$*" = setup-token ] && [ -t 0 ] && {login} && echo "Your token:"')
        own = {"HOME": str(self.home), "EQUABOT_HOME": str(self.home / ".equabot"), "PATH": f"{tools}:{os.environ['PATH']}"}
        broker.environ |= own
        self.shown = ""

    @staticmethod
    def _tool(path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def does(self, block: Block) -> None:
        """One block. It has to succeed."""
        match block.kind:
            case "sh":
                self._runs(["sh", "-eu", "-c", block.text])
            case "sh tty":
                self._types(block.text.strip())
            case "python":
                self._runs([sys.executable, "-c", block.text])

    def _runs(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self.here,
            env=self.broker.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}"
        self.shown += done.stdout

    def _types(self, command: str) -> None:
        with Person(command.split(), environ=self.broker.environ) as person:
            if command == "equabot onboard":
                person.reads("What to set up").types("api-key").reads("Where to store it").types("store")
                person.reads("API key of anthropic (not shown)").types(KEY)
            elif command.startswith("equabot models auth setup-token"):
                person.reads("Your token:").reads("Paste the token (not shown)").types(TOKEN)
            assert person.leaves() == 0, person.seen
            self.shown += person.seen


@pytest.fixture
def reader() -> Iterator[Reader]:
    broker = RunningBroker(credentials={}, dotenv="", config="")
    yield Reader(broker)
    broker.close()


@pytest.mark.parametrize("running", [False, True], ids=["alone", "beside a broker"])
def test_the_page(reader: Reader, *, running: bool) -> None:
    """Everything on it succeeds in its order, with a broker and without; it leaves what it says, and no secret shows."""
    if running:
        reader.broker.start()
    for block in BLOCKS:
        if running or block.kind != "python":
            reader.does(block)
    assert ("pinned" in reader.shown) is running
    assert "anthropic:env\tstatic" in reader.shown or running
    assert "anthropic:dotenv\tstatic" in reader.shown
    assert "d0csd0cs" not in reader.shown
    store = reader.home / ".equabot/agents/main/agent/auth-profiles.json"
    profiles = json.loads(store.read_text())["profiles"]
    assert {name: entry["type"] for name, entry in profiles.items()} == {
        "anthropic:default": "token",
        "openai:default": "api_key",
        "anthropic:manual": "token",
        "openrouter:manual": "token",
    }
    assert (reader.home / ".equabot/.env").read_text() == f"ANTHROPIC_API_KEY={KEY}\n"
    assert "openai:work" not in (reader.home / ".equabot/equabot.yaml").read_text()


def test_what_is_for_root_names_what_is_there() -> None:
    """Files of the repository, in a script that a shell understands; and where the units look for them."""
    blocks = [block.text for block in BLOCKS if block.kind == "sh root"]
    assert len(blocks) == 1
    for text in blocks:
        assert subprocess.run(["sh", "-n", "-c", text], check=False).returncode == 0
        named = re.findall(r"deploy/\S+", text)
        assert named
        assert [name for name in named if not list(ROOT.glob(name))] == []
    monitor = (ROOT / "deploy/systemd/equabot-auth-monitor.service").read_text()
    assert "EnvironmentFile=-/etc/equabot/auth-monitor\n" in monitor
    assert "ExecStart=/usr/local/bin/equabot-auth-monitor\n" in monitor


def test_what_is_for_a_pod_fits_what_is_for_the_broker() -> None:
    """Every token file that the configuration reads is projected where the volume is mounted."""
    (pod,) = (yaml.safe_load(block.text) for block in BLOCKS if block.kind == "yaml")
    (volume,) = pod["volumes"]
    tokens = [source["serviceAccountToken"] for source in volume["projected"]["sources"]]
    projected = {f"/run/secrets/workload/{token['path']}" for token in tokens}
    assert set(re.findall(r"token_file: (/[^,\s]+)", PAGE)) == projected
    assert len({token["audience"] for token in tokens}) == len(tokens) == 3


@pytest.mark.parametrize(("file", "name"), ROWS, ids="::".join)
def test_every_row_is_proved_by_a_test_that_is_there(file: str, name: str) -> None:
    """A row without its test would be a promise."""
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_page_is_whole() -> None:
    """Every row of its table has a test, every kind of block is one that is run, and its links lead somewhere."""
    table = PAGE.partition("## Line by line")[2]
    assert len([line for line in table.splitlines() if line.startswith("| ")]) - 1 == len(ROWS) >= 30
    assert {block.kind for block in BLOCKS} == {"sh", "sh tty", "sh root", "python", "yaml"}
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
