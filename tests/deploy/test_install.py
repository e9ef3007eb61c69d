"""The ways from a clone to `equabot` that the documents show, each in an environment of its own."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from equabot_cli.program import AGENT_COMMANDS, BROKER_COMMANDS
from tests.journeys.running import RunningBroker
from tests.version import VERSION

ROOT: Final = Path(__file__).parents[2]
UV: Final = Path(sys.executable).with_name("uv")
KEY: Final = "sk-ant-api03-" + "install0" * 11 + "AA"
ASKED: Final = "import equabot_client, importlib.metadata as m; print(equabot_client.__name__, m.version('equabot-client'))"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of this project, with the changes that are not committed yet."""
    clone = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    return clone


def run(*words: str | Path, cwd: Path, **environ: str) -> str:
    """What the command prints."""
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_pip_finds_the_client_in_the_clone(clone: Path, tmp_path: Path) -> None:
    """F1: no index has the client, and anybody could register its name there."""
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    run(tmp_path / "env/bin/pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", ".", cwd=clone)
    equabot = tmp_path / "env/bin/equabot"
    assert run(equabot, "--version", cwd=tmp_path).startswith("equabot ")
    assert run(tmp_path / "env/bin/python", "-c", ASKED, cwd=tmp_path) == f"equabot_client {VERSION}\n"
    shown = run(equabot, "models", "status", "--json", cwd=tmp_path, EQUABOT_HOME=str(tmp_path), ANTHROPIC_API_KEY=KEY)
    assert "anthropic:env" in shown
    assert KEY not in shown


@pytest.mark.timeout(600)
def test_uv_installs_the_tool_from_the_clone(clone: Path, tmp_path: Path) -> None:
    """F1: `uv tool install .` puts `equabot` where the user's programs are."""
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    run(UV, "tool", "install", "--quiet", "--python", sys.executable, ".", cwd=clone, **places)
    assert run(tmp_path / "bin/equabot", "--version", cwd=tmp_path).startswith("equabot ")


@pytest.mark.timeout(600)
def test_pipx_installs_the_tool_from_the_clone(clone: Path, tmp_path: Path) -> None:
    """F1: `pipx install .` does the same, with a pipx that uv runs here."""
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin"), "PIPX_MAN_DIR": str(tmp_path / "man")}
    pipx = (UV, "tool", "run", "--quiet", "--python", sys.executable, "pipx==1.18.4")
    run(*pipx, "install", "--python", sys.executable, ".", cwd=clone, **places)
    assert run(tmp_path / "bin/equabot", "--version", cwd=tmp_path).startswith("equabot ")


def test_modules_of_the_user_do_no_harm(tmp_path: Path) -> None:
    """F2: a `broker.py`, and a file named like any room, where Python looks first. `envoy` is the package of a dependency."""
    rooms = {path.stem for path in (ROOT / "broker/equabot_broker").iterdir()} - {"envoy", "py", "__init__", "__pycache__"}
    for name in {"broker", "client", *rooms}:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the user was imported')\n")
    shown = run(
        sys.executable, "-m", "equabot_broker", "models", "status",
        cwd=tmp_path, PYTHONPATH=str(tmp_path), EQUABOT_HOME=str(tmp_path), ANTHROPIC_API_KEY=KEY,
    )  # fmt: skip
    assert "anthropic:env" in shown
    run(
        sys.executable,
        "-c",
        "import equabot_client.aio, equabot_broker.bootstrap.serve",
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path),
    )


def test_an_install_that_takes_long_shows_its_progress(tmp_path: Path) -> None:
    """F3: `make run` in a new clone says what it installs; pip is quiet only where no person looks."""
    make = ["make", "--dry-run", "run", f"VENV={tmp_path}/venv"]
    master, slave = pty.openpty()
    try:
        done = subprocess.run(make, cwd=ROOT, stdout=slave, stderr=subprocess.PIPE, check=True)
        assert done.stderr == b""
        at_a_terminal = os.read(master, 1 << 16).decode()
    finally:
        os.close(slave)
        os.close(master)
    in_a_log = run(*make, cwd=ROOT)
    assert "This takes about a minute" in at_a_terminal
    assert "--quiet" in in_a_log
    assert "--quiet" not in at_a_terminal


@pytest.mark.timeout(600)
def test_the_client_installs_by_itself(clone: Path, tmp_path: Path) -> None:
    """F1: an agent's image needs the client and nothing of the broker."""
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    run(UV, "pip", "install", "--quiet", "--python", tmp_path / "env", "./clients/python", cwd=clone)
    assert run(tmp_path / "env/bin/python", "-c", ASKED, cwd=tmp_path) == f"equabot_client {VERSION}\n"
    listed = run(UV, "pip", "list", "--python", tmp_path / "env", cwd=tmp_path)
    assert "equabot-broker" not in listed


@pytest.fixture(scope="module")
def agent_commands(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`equabot` as the wheel of the client installs it, in an environment without the broker."""
    here = tmp_path_factory.mktemp("agent")
    run(UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", here, "./clients/python", cwd=clone)
    (wheel,) = here.glob("*.whl")
    run(UV, "venv", "--quiet", "--python", sys.executable, here / "env", cwd=here)
    run(UV, "pip", "install", "--quiet", "--python", here / "env", f"{wheel}[cli]", cwd=here)
    return here / "env/bin/equabot"


@pytest.mark.timeout(600)
def test_the_commands_of_an_agent_need_no_broker_package(agent_commands: Path) -> None:
    """Issue 12: an agent's container has `key`, `exec`, `lease` and `health`, and names the package of the others."""
    help_text = run(agent_commands, cwd=agent_commands.parent)
    offered, others = help_text.split("not installed here:")
    assert all(f"\n    {name} " in offered for name in AGENT_COMMANDS)
    assert set(BROKER_COMMANDS) == set(others.split())
    assert run(agent_commands, "--version", cwd=agent_commands.parent) == f"equabot {VERSION}\n"
    done = subprocess.run([agent_commands, "serve"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert "'serve' is a command of the package equabot-broker" in done.stderr


@pytest.mark.timeout(600)
def test_the_commands_of_an_agent_work_with_a_broker(agent_commands: Path) -> None:
    """The four commands, over the socket that an agent's container mounts."""
    broker = RunningBroker(credentials={}, dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config="")

    def ask(*words: str) -> str:
        return run(agent_commands, *words, cwd=broker.home, **broker.environ)

    try:
        broker.start()
        assert ask("key", "anthropic") == f"{KEY}\n"
        assert ask("exec", "anthropic", "--", "printenv", "ANTHROPIC_API_KEY") == f"{KEY}\n"
        lease = json.loads(ask("lease", "acquire", "anthropic", "--json"))["id"]
        assert lease in ask("lease", "list")
        assert ask("lease", "revoke", lease) == f"lease {lease} is revoked\n"
        assert ask("health") == "SERVING\n"
    finally:
        broker.close()
    absent = subprocess.run(
        [agent_commands, "key", "anthropic"], env=broker.environ, capture_output=True, text=True, check=False
    )
    assert (absent.returncode, absent.stdout) == (3, "")
    assert absent.stderr.startswith("equabot: no broker answers at unix:")
    assert len(absent.stderr.splitlines()) == 1
