"""What a test may need of the machine beyond Python, and what happens where the machine lacks it.

A test of such a tier is skipped, with the reason in pytest's summary, except where `EQUABOT_TEST_REQUIRE` (tiers
separated by commas) names the tier: there it fails.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from typing import NoReturn

import pytest


def require(tier: str) -> None:
    """Goes on only where the machine has what the tier needs."""
    reason = _PROBES[tier]()
    if reason:
        absent(tier, reason)


def absent(tier: str, reason: str) -> NoReturn:
    """Skips or fails the test, for want of the tier."""
    required = {name.strip() for name in os.environ.get("EQUABOT_TEST_REQUIRE", "").split(",")}
    if tier in required:
        pytest.fail(f"{tier} is required here: {reason}", pytrace=False)
    pytest.skip(f"{tier}: {reason}")


def _docker() -> str:
    if shutil.which("docker") is None:
        return "no docker command"
    try:
        answered = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return "the Docker Engine does not answer"
    return "" if answered else "no Docker Engine is running"


# Each returns why the tier cannot run, or nothing.
_PROBES: Mapping[str, Callable[[], str]] = {
    "docker": _docker,
}
