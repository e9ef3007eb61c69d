"""The units: systemd itself says whether they are right, and how much a broker in them is exposed."""

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.tiers import absent

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def analyze(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if shutil.which("systemd-analyze") is None:
        absent("systemd", "no systemd-analyze command")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units, with programs that are there."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.iterdir():
        text = re.sub(r"/usr/local/bin/[a-z-]+", str(program), unit.read_text())
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def read(name: str) -> ConfigParser:
    """A unit's settings; of one that comes twice, the last."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_systemd_takes_the_units(installed: Path) -> None:
    """Not a word of complaint."""
    units = [str(path) for path in sorted(installed.iterdir()) if path.suffix in (".service", ".timer")]
    done = analyze("verify", "--man=no", *units)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["equabot-broker.service", "equabot-auth-monitor.service"])
def test_little_is_exposed(installed: Path, name: str) -> None:
    """By systemd's own measure, of 10 points at most 2: it fails above the threshold."""
    done = analyze("security", "--offline=true", "--no-pager", "--threshold=20", str(installed / name))
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("name", ["equabot-broker.service", "equabot-auth-monitor.service"])
def test_memory_and_tasks_are_limited(name: str) -> None:
    """S27: what leaks or floods ends this unit, and not the machine; and no key reaches swap."""
    service = read(name)["Service"]
    assert (service["MemoryMax"], service["MemorySwapMax"]) == ("256M", "0")
    assert 0 < int(service["TasksMax"]) <= 128


def test_the_broker_keeps_what_it_must() -> None:
    """Leases over a restart, time to end a refresh, its own directories, and no privileges to gain."""
    service = read("equabot-broker.service")["Service"]
    assert service["RuntimeDirectory"] == "equabot"
    assert service["RuntimeDirectoryPreserve"] == "yes"
    assert service["StateDirectoryMode"] == "0700"
    assert int(service["TimeoutStopSec"]) > 35
    assert (service["NoNewPrivileges"], service["ProtectSystem"], service["LimitCORE"]) == ("yes", "strict", "0")


def test_the_timer_is_five_minutes_after_boot_and_every_half_hour() -> None:
    """And its service counts what is only about to expire as no failure."""
    timer = read("equabot-auth-monitor.timer")["Timer"]
    assert (timer["OnBootSec"], timer["OnUnitActiveSec"]) == ("5min", "30min")
    assert read("equabot-auth-monitor.service")["Service"]["SuccessExitStatus"] == "2"
