"""What `make dist` makes, taken apart; and the release workflow, read."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.tiers import program, require
from tests.version import VERSION

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "release.yaml"
DOCKERFILES = [ROOT / "Dockerfile", ROOT / "deploy" / "example-agent" / "Dockerfile"]
PIN = ROOT / "deploy" / "release" / "pin_chart.py"

pytestmark = pytest.mark.timeout(600)  # the first test waits for `make dist`


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a release consists of, made once and moved out of the checkout."""
    require("helm")
    made = subprocess.run(["make", "dist"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return Path(shutil.move(ROOT / "dist", tmp_path_factory.mktemp("release") / "dist"))


def shipped() -> dict[str, str]:
    """Name and version of each distribution that the lock puts into the image on this machine."""
    lines = re.findall(r"^([a-zA-Z0-9][^ ]*==.*?) *\\\\?$", (ROOT / "requirements" / "runtime.txt").read_text(), re.MULTILINE)
    wanted = [Requirement(line.rstrip("\\").strip()) for line in lines]
    return {
        normal(each.name): next(iter(each.specifier)).version
        for each in wanted
        if each.marker is None or each.marker.evaluate()
    }


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_artifact_is_there_and_has_a_checksum(dist: Path) -> None:
    """Wheels and sdists of broker and client, the chart, the SBOM and the notices."""
    sums = {name: digest for digest, name in (line.split("  ") for line in (dist / "SHA256SUMS").read_text().splitlines())}
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in dist.iterdir() if path.name != "SHA256SUMS"
    }
    assert {re.sub(r"[0-9]+\.[0-9]+\.[0-9]+", "V", name) for name in sums} == {
        "THIRD-PARTY-NOTICES.txt",
        "equabot-broker-V.tgz",
        "equabot-broker.cdx.json",
        "equabot_broker-V-py3-none-any.whl",
        "equabot_broker-V.tar.gz",
        "equabot_client-V-py3-none-any.whl",
        "equabot_client-V.tar.gz",
    }


def test_the_sbom_lists_what_the_image_holds(dist: Path) -> None:
    """CycloneDX, with each distribution of the lock at its version and with a licence, and nothing else."""
    bom: dict[str, Any] = json.loads((dist / "equabot-broker.cdx.json").read_text())
    assert bom["bomFormat"] == "CycloneDX"
    listed = {normal(each["name"]): each["version"] for each in bom["components"]}
    ours = {"equabot-client": VERSION}
    assert {name: version for name, version in listed.items() if name != "equabot-broker"} == shipped() | ours
    assert [each["name"] for each in bom["components"] if not each.get("licenses")] == []


def test_the_notices_name_what_the_image_holds(dist: Path) -> None:
    """Each distribution of the lock, with its version and its licence."""
    notices = (dist / "THIRD-PARTY-NOTICES.txt").read_text()
    headings = re.findall(r"^=+\n(\S+) (\S+): (.+)\n=+$", notices, re.MULTILINE)
    assert {normal(name): version for name, version, _ in headings} == shipped()
    assert "Permission is hereby granted" in notices


def test_the_archives_hold_the_product_and_no_more(dist: Path) -> None:
    """No test, no credential of a developer, no file of this machine."""
    for wheel in dist.glob("*.whl"):
        tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        assert tops <= {"equabot_broker", "equabot_cli", "equabot_client", "equabot"}
        required = re.findall(r"Requires-Dist: equabot-client.*", _metadata(wheel))
        assert required == ([f"Requires-Dist: equabot-client=={VERSION}"] if wheel.name.startswith("equabot_broker") else [])
    for archive in dist.glob("*.tar.gz"):
        with tarfile.open(archive) as opened:
            names = opened.getnames()
        assert not [name for name in names if re.search(r"/tests/|/\.env|\.venv|/build/", name)]


def _metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return opened.read(name).decode()


def test_the_wheels_are_reproducible(dist: Path, tmp_path: Path) -> None:
    """The same commit gives the same bytes, so that whoever doubts a release can build it."""
    epoch = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    environ = {
        "PATH": str(Path(sys.executable).parent),
        "SOURCE_DATE_EPOCH": epoch.strip(),
        "HOME": str(tmp_path),
        "EQUABOT_RELEASE": "1",
    }
    build = [sys.executable, "-m", "uv", "build", "--quiet", "--no-build-isolation", "--python", sys.executable]
    for project in (".", "clients/python"):
        subprocess.run([*build, "--out-dir", str(tmp_path), project], cwd=ROOT, env=environ, check=True)
    built = {path.name: path.read_bytes() for path in [*tmp_path.glob("*.whl"), *tmp_path.glob("*.tar.gz")]}
    assert len(built) == 4
    assert {name: data == (dist / name).read_bytes() for name, data in built.items()} == dict.fromkeys(built, True)


def test_the_chart_is_installable_from_its_archive(dist: Path) -> None:
    """helm renders the archive as it renders the folder."""
    helm = program("helm")
    assert helm is not None
    (archive,) = dist.glob("*.tgz")
    rendered = [
        subprocess.run([helm, "template", "x", chart], capture_output=True, text=True, check=True).stdout
        for chart in (archive, ROOT / "helm" / "equabot-broker")
    ]
    assert rendered[0] == rendered[1]


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_the_packages_of_a_release_install(dist: Path, kind: str, tmp_path: Path) -> None:
    """The broker's wheel or sdist takes the client from the same directory, by name and version."""
    (files := tmp_path / "files").mkdir()
    for path in dist.glob(kind):
        shutil.copy(path, files)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "env"], check=True)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", tmp_path / "env", "--find-links", files]
    subprocess.run([*install, f"equabot-broker=={VERSION}"], check=True)
    shown = subprocess.run([tmp_path / "env/bin/equabot", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(f"equabot {VERSION}")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.parent.name))
def test_base_images_are_named_by_digest(dockerfile: Path) -> None:
    """A tag can be moved to another image."""
    default = re.findall(r"^ARG BASE_IMAGE=(.+)$", dockerfile.read_text(), re.MULTILINE)
    assert len(default) == 1
    assert re.fullmatch(r"[a-z.:0-9/-]+@sha256:[0-9a-f]{64}", default[0])
    assert set(re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)) == {"${BASE_IMAGE}", "base"}


def test_the_workflow_signs_and_attests_and_pins() -> None:
    """Actions by commit, no token by default, a signature and provenance for the image and for every file."""
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    uses = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [each for each in uses if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", each)] == []
    assert "cosign sign --yes" in text
    assert len([each for each in uses if each.startswith("actions/attest@")]) == 2
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart with the script that pins its images, laid out as in the repository."""
    shutil.copytree(ROOT / "helm", tmp_path / "helm")
    (tmp_path / "deploy" / "release").mkdir(parents=True)
    shutil.copy(PIN, tmp_path / "deploy" / "release")
    return tmp_path


def pin(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = root / "deploy" / "release" / PIN.name
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)


def test_the_released_chart_names_its_images_by_digest(chart: Path) -> None:
    """Both sections are pinned, and nothing else of the values changes."""
    digest = "sha256:" + "ab" * 32
    before = yaml.safe_load((chart / "helm" / "equabot-broker" / "values.yaml").read_text())
    for section in ("broker", "gateway"):
        assert pin(chart, section, f"example.org/{section}", "v9", digest).returncode == 0
        before[section]["image"] |= {"repository": f"example.org/{section}", "tag": "v9", "digest": digest}
    assert yaml.safe_load((chart / "helm" / "equabot-broker" / "values.yaml").read_text()) == before
    assert pin(chart, "gateway").stdout == "example.org/gateway:v9\n"


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["broker", "x"], ["broker", "x", "v1", "sha256:short"]])
def test_a_wrong_pin_is_refused(chart: Path, arguments: list[str]) -> None:
    """With how it is called, and without a change."""
    before = (chart / "helm" / "equabot-broker" / "values.yaml").read_text()
    done = pin(chart, *arguments)
    assert (done.returncode, "pin_chart.py broker" in done.stderr) == (64, True)
    assert (chart / "helm" / "equabot-broker" / "values.yaml").read_text() == before
