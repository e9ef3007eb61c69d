"""The version is the same in every place, and `make release` knows every place."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.version import VERSION

ROOT = Path(__file__).parents[1]
SCRIPT = Path("deploy/release/version.py")
NAMED = re.compile(rf"(?<![\d.]){re.escape(VERSION)}(?![\d]|\.\d)")
OTHERS: Final = {"CHANGELOG.md", "deploy/ci", "deploy/wheelhouse"}
"""Files and folders that name versions of other programs, or versions of the past."""
WHERE: Final = ("*.md", "*.toml", "*.yaml", "clients/**/*", "deploy/**/*", "docs/**/*", "helm/**/*", ".github/**/*")


def places() -> list[str]:
    """Every file that names the version."""
    found = []
    for path in {path for pattern in WHERE for path in ROOT.glob(pattern) if path.is_file()}:
        name = str(path.relative_to(ROOT))
        if any(name == other or name.startswith(f"{other}/") for other in OTHERS) or {"__pycache__", "node_modules"} & set(
            path.parts
        ):
            continue
        if NAMED.search(path.read_text(errors="replace")):
            found.append(name)
    return sorted(found)


def run(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The script, in a tree of its own."""
    command = [sys.executable, str(root / SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script reads and writes."""
    for name in (*places(), "CHANGELOG.md", "tests/helm/fixtures/consumer/Chart.yaml", str(SCRIPT)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_place_has_the_version() -> None:
    """Broker, client, chart and the images that the chart and the kustomization name."""
    assert run(ROOT).stdout == f"{VERSION}\n"
    client = tomllib.loads((ROOT / "clients/python/pyproject.toml").read_text())
    assert client["project"]["version"] == VERSION
    chart = yaml.safe_load((ROOT / "helm/equabot-broker/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)
    values = yaml.safe_load((ROOT / "helm/equabot-broker/values.yaml").read_text())
    assert {values[section]["image"]["tag"] for section in ("broker", "application")} == {VERSION}
    base = (ROOT / "deploy/kubernetes/base/agent-deployment.yaml").read_text()
    assert set(re.findall(r"image: equabot-[a-z-]+:(\S+)", base)) == {VERSION}


def test_a_release_reaches_every_place(tree: Path) -> None:
    """No file names the old version afterwards, and the changelog has a section for the new one."""
    done = run(tree, "987.65.43")
    assert done.returncode == 0, done.stderr
    left = [name for name in places() if NAMED.search((tree / name).read_text())]
    assert left == [], "add them to PLACES in deploy/release/version.py"
    assert run(tree).stdout == "987.65.43\n"
    assert re.search(r"## \[Unreleased\]\n\n## \[987\.65\.43\] - \d{4}-\d\d-\d\d\n", (tree / "CHANGELOG.md").read_text())


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3-rc1", "01.2.3", "", VERSION])
def test_what_is_not_a_new_version_is_refused(tree: Path, version: str) -> None:
    """Before anything is written."""
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert run(tree, version).returncode == 64
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts} == before


def test_a_place_without_the_version_stops_the_release(tree: Path) -> None:
    """Nothing is half written."""
    security = tree / "SECURITY.md"
    security.write_text("no version here\n")
    done = run(tree, "987.65.43")
    assert (done.returncode, "SECURITY.md" in done.stderr) == (1, True)
    assert run(tree).stdout == f"{VERSION}\n"
