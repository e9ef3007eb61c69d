"""The ways from a clone to `equabot` that the documents show, each in an environment of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.version import VERSION

ROOT: Final = Path(__file__).parents[2]
UV: Final = Path(sys.executable).with_name("uv")
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
    assert run(tmp_path / "env/bin/equabot", "--version", cwd=tmp_path).startswith("equabot ")
    assert run(tmp_path / "env/bin/python", "-c", ASKED, cwd=tmp_path) == f"equabot_client {VERSION}\n"


@pytest.mark.timeout(600)
def test_uv_installs_the_tool_from_the_clone(clone: Path, tmp_path: Path) -> None:
    """F1: `uv tool install .` puts `equabot` where the user's programs are."""
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    run(UV, "tool", "install", "--quiet", "--python", sys.executable, ".", cwd=clone, **places)
    assert run(tmp_path / "bin/equabot", "--version", cwd=tmp_path).startswith("equabot ")


@pytest.mark.timeout(600)
def test_the_client_installs_by_itself(clone: Path, tmp_path: Path) -> None:
    """F1: an agent's image needs the client and nothing of the broker."""
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    run(UV, "pip", "install", "--quiet", "--python", tmp_path / "env", "./clients/python", cwd=clone)
    assert run(tmp_path / "env/bin/python", "-c", ASKED, cwd=tmp_path) == f"equabot_client {VERSION}\n"
    listed = run(UV, "pip", "list", "--python", tmp_path / "env", cwd=tmp_path)
    assert "equabot-broker" not in listed
