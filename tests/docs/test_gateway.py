"""The page on the gateway: its commands and its example are run against a vendor on loopback, its table compared with the code.

A block ```sh serve is what runs while the others are done, ```yaml a configuration of the broker, ```yaml envoy one of Envoy.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.running import Gateway
from tests.journeys.running import KEY
from tests.tiers import program, require

ROOT = Path(__file__).parents[2]
BROKER = ROOT / "broker" / "equabot_broker"
PAGE = (ROOT / "docs" / "gateway.md").read_text()
README = (ROOT / "README.md").read_text()
ROUTER_KEY = "sk-or-v1-" + "r0uter00" * 8
CLAUDE = """#!/bin/sh
curl -fsS "$ANTHROPIC_BASE_URL/v1/messages" \\
  -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -H "content-type: application/json" -d '{}'
"""


class Block(NamedTuple):
    """A fenced block: what stands behind its fence, and in it."""

    kind: str
    text: str


BLOCKS = [Block(*found) for found in re.findall(r"```([a-z ]+)\n(.*?)```", PAGE, re.DOTALL)]


@pytest.fixture(scope="module")
def vendor() -> Iterator[Upstream]:
    with Upstream() as serving:
        serving.accepted = {KEY, ROUTER_KEY}
        yield serving


@pytest.fixture(scope="module")
def reader(vendor: Upstream) -> Iterator[Gateway]:
    """Somebody who has typed the first command, on a host whose `claude` is a stand-in."""
    gateway = Gateway(vendor, mode="off", dotenv=f"ANTHROPIC_API_KEY={KEY}\nOPENROUTER_API_KEY={ROUTER_KEY}\n")
    addresses = {"anthropic": vendor.url, "openrouter": f"{vendor.url}/api/v1"}
    gateway.configure({"providers": {name: {"base_url": address} for name, address in addresses.items()}})
    tools = gateway.home / "bin"
    tools.mkdir()
    scripts = {"equabot": f'#!/bin/sh\nexec {sys.executable} -m equabot_broker "$@"\n', "claude": CLAUDE}
    for name, script in scripts.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    (tools / "envoy").symlink_to(str(program("envoy")))
    gateway.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    [served] = [block.text for block in BLOCKS if block.kind == "sh serve"]
    gateway.command = served.split()
    try:
        yield gateway.start()
    finally:
        gateway.close()


def types(reader: Gateway, *command: str) -> str:
    """What comes of it. It has to succeed."""
    done = subprocess.run(
        command, cwd=reader.home, env=reader.environ, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), f"{command[-1]}\n{done.stderr}"
    assert KEY not in done.stdout
    return done.stdout


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "sh"], ids=lambda block: block.text[:40])
def test_a_command(reader: Gateway, block: Block) -> None:
    """It does what the page says it does."""
    shown = types(reader, "sh", "-eu", "-c", block.text)
    if "claude" in block.text:
        assert '"text": "hello"' in shown
    if "lease acquire" in block.text:
        assert '"secret": "eqb_' in shown
        assert '"id": "claude"' in shown
    if "gateway config" in block.text:
        assert "static_resources" in (reader.home / "envoy.yaml").read_text()


def test_what_the_readme_types(reader: Gateway) -> None:
    """The same, shorter."""
    [command] = [line for line in README.splitlines() if line.startswith("equabot exec") and "brokered" in line]
    assert '"text": "hello"' in types(reader, "sh", "-eu", "-c", command)


def test_the_example(reader: Gateway) -> None:
    """A program, as it stands there."""
    [example] = [block.text for block in BLOCKS if block.kind == "python"]
    assert "hello" in types(reader, sys.executable, "-c", example)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.kind == "yaml"], ids=lambda block: block.text[:20])
def test_a_configuration(reader: Gateway, tmp_path: Path, block: Block) -> None:
    """The broker takes it, without a warning."""
    (tmp_path / "equabot.yaml").write_text(block.text)
    done = reader.run("config", "check", "--config", str(tmp_path / "equabot.yaml"))
    assert (done.returncode, done.stderr) == (0, "")


def test_envoys_configuration(tmp_path: Path) -> None:
    """Envoy takes it, without a warning. That it works is in tests/gateway/test_secret_discovery.py."""
    require("envoy")
    [written] = [block.text for block in BLOCKS if block.kind == "yaml envoy"]
    (tmp_path / "envoy.yaml").write_text(written)
    told = subprocess.run(
        [str(program("envoy")), "--mode", "validate", "-c", str(tmp_path / "envoy.yaml"), "-l", "warning"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "eprecated" not in told.stderr


def test_every_reason_is_told_and_none_that_there_is_not() -> None:
    """The table has what the gateway's own code says, and beside it only words of the contract."""
    table = PAGE.partition("## What is refused")[2].partition("## Policies")[0]
    told = {word for line in table.splitlines() if line.startswith("| ") for word in re.findall(r"`([A-Z_]+)`", line)}
    inspection, replies = ((BROKER / "envoy" / name).read_text() for name in ("inspection.py", "local_replies.py"))
    said = set(re.findall(r'Refused\(\s*\d+,\s*"([A-Z_]+)"', inspection)) | set(
        re.findall(r'^ +"([A-Z_]+)",$', replies, re.MULTILINE)
    )
    said |= set(re.findall(r'_flags\("[A-Z,]+"\), "\w+", "([A-Z_]+)"', replies))
    assert len(said) > 12
    words = set(re.findall(r'reason = "([A-Z_]+)"', (BROKER / "domain" / "errors.py").read_text()))
    assert said <= told
    assert told <= said | words | {"NOT_SEARCHABLE"}


def test_the_page_is_whole() -> None:
    """Every kind of block is one that is run, and its links lead somewhere."""
    assert {block.kind for block in BLOCKS} == {"sh", "sh serve", "python", "yaml", "yaml envoy"}
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
