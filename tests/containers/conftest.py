"""The image, built by the door everyone uses."""

import os
import subprocess
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config

from tests.tiers import absent, program, require

# Our containers end with their context; the reaper would be one more image to pull.
testcontainers_config.ryuk_disabled = True

_ROOT = Path(__file__).parents[2]
_IMAGE = "equabot-broker:test"


_ENVOY_IMAGE = "equabot-envoy:test"
_AGENT_IMAGE = "equabot-example-agent:test"


def _make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "--no-print-directory", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def docker_image() -> str:
    """The image of this working tree, as `name:tag`. `EQUABOT_TEST_IMAGE` names one to test in its place."""
    require("docker")
    if given := os.environ.get("EQUABOT_TEST_IMAGE"):
        return given
    # A base image that cannot be had is the machine's lack; any other failure of the build is ours.
    if _make("image", "IMAGE=equabot-base:probe", "BUILD_FLAGS=--target=base").returncode:
        absent("docker", "the base image cannot be pulled; deploy/ci/docker makes one")
    return _built(_make("image", f"IMAGE={_IMAGE}"), _IMAGE)


@pytest.fixture(scope="session")
def agent_image(docker_image: str) -> str:
    """The example agent's image of this working tree, as `name:tag`."""
    return _built(_make("example-agent", f"AGENT_IMAGE={_AGENT_IMAGE}"), _AGENT_IMAGE)


@pytest.fixture(scope="session")
def envoy_image(docker_image: str) -> str:
    """An image with Envoy where the official one has it, and certificates. That one cannot be pulled everywhere; the
    program is the same."""
    require("envoy")
    envoy = program("envoy")
    assert envoy is not None
    recipe = f"FROM {docker_image}\nCOPY {envoy.name} /usr/local/bin/envoy\n"
    command = ["docker", "build", "--quiet", "--tag", _ENVOY_IMAGE, "--file", "-", str(envoy.parent)]
    return _built(subprocess.run(command, input=recipe, capture_output=True, text=True, check=False), _ENVOY_IMAGE)


def _built(done: subprocess.CompletedProcess[str], image: str) -> str:
    if done.returncode:
        pytest.fail(f"making {image} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}", pytrace=False)
    return image
