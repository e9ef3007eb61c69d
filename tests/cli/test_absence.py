"""Why no broker answers: shortly, and with a step that this user can take."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.strangers import without_rights_of_root

OWN = "start your own broker on other ports: `EQUABOT_LISTEN_HEALTH="


@pytest.fixture
def home() -> Iterator[Path]:
    """Short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="eqb-") as place:
        yield Path(place)


def run(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")}
    command = [*without_rights_of_root(), sys.executable, "-m", "equabot_broker", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "words", [("key", "anthropic"), ("lease", "list"), ("lease", "acquire", "anthropic"), ("agent", "list")]
)
def test_without_a_broker_a_short_line_says_how_to_start_one(home: Path, words: tuple[str, ...]) -> None:
    """F13: no text of gRPC; also where a socket was left by a broker that is gone."""
    for left in (False, True):
        if left:
            for agent in ("main", "admin"):
                (home / "run" / agent).mkdir(parents=True, mode=0o700)
                with socket.socket(socket.AF_UNIX) as gone:
                    gone.bind(str(home / "run" / agent / "broker.sock"))
        done = run(home, *words)
        assert done.returncode == 3
        assert done.stderr.endswith("start one with `equabot serve`\n")
        assert len(done.stderr) < 160


def test_an_agent_that_is_not_configured_is_not_a_missing_broker(home: Path) -> None:
    """F13: with where to add it, and which there are; so it is not exit code 3."""
    done = run(home, "lease", "acquire", "anthropic", "--agent", "coder")
    assert done.returncode == 64
    assert "agent 'coder' is not configured: the configured agents are main" in done.stderr
    assert "Agents are configured in " in done.stderr
    assert "no broker" not in done.stderr


def test_without_main_an_agent_has_to_be_named(home: Path) -> None:
    """F13: who names no agent means `main`; where that is not configured, starting a broker does not help."""
    (home / ".equabot").mkdir()
    (home / ".equabot" / "equabot.yaml").write_text("agents: {claude: {providers: [anthropic]}}\n")
    done = run(home, "key", "anthropic")
    assert done.returncode == 64
    assert "no agent was named, and agent 'main' is not configured: the configured agents are claude" in done.stderr
    assert "Name one with --agent" in done.stderr
    assert "no broker" not in done.stderr


@pytest.mark.parametrize("words", [("key", "anthropic"), ("lease", "list"), ("doctor",), ("models", "status")])
def test_another_users_broker_is_said_with_a_way_that_works(home: Path, words: tuple[str, ...]) -> None:
    """F8: whose it is, and that this user may run its own, on other ports; reports go on without it."""
    closed = home / "run"
    (closed / "main").mkdir(parents=True)
    (closed / "admin").mkdir()
    owner = 4242 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        os.chown(closed, owner, owner)
    closed.chmod(0)
    done = run(home, *words)
    closed.chmod(0o700)
    said = done.stdout + done.stderr
    assert "internal error" not in said
    if os.geteuid() == 0:
        assert OWN in said
        assert f"sudo -u '#{owner}'" in said
    assert done.returncode in ((3,) if words[0] in ("key", "lease") else (0, 1))
