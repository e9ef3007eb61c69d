"""One node for the whole session, with our images, and releases of the chart on it."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.containers.conftest import agent_image, docker_image, envoy_image  # noqa: F401
from tests.containers.test_chart import split
from tests.fakes.upstream import Upstream
from tests.kubelet.node import PAUSE, Node
from tests.kubelet.release import Release
from tests.tiers import absent, cluster_programs, require


@pytest.fixture(scope="session")
def node(docker_image: str, agent_image: str, envoy_image: str) -> Iterator[Node]:  # noqa: F811
    """The node. It ends with the session, also when that is ended by SIGTERM."""
    require("kubelet")
    assets = cluster_programs()
    if assets is None:
        absent("kubelet", "no programs; deploy/ci/kubernetes builds them")
    recipe = f'FROM {docker_image}\nENTRYPOINT ["sleep", "infinity"]\n'
    command = ["docker", "build", "--quiet", "--tag", PAUSE, "-"]
    subprocess.run(command, input=recipe, capture_output=True, text=True, check=True)
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="eqn", ignore_cleanup_errors=True) as directory,
            Node(assets, Path(directory)) as running,
        ):
            running.load(docker_image, agent_image, envoy_image)
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def release(node: Node, docker_image: str, agent_image: str, envoy_image: str, tmp_path: Path) -> Iterator[Release]:  # noqa: F811
    """A namespace for a release, and values with the test's images and provider."""
    namespace = node.namespace("agents")
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    node.patch("Namespace", namespace, enforced)
    with Upstream(host="0.0.0.0") as provider:
        needed = {
            "broker": {"image": split(docker_image)},
            "gateway": {"image": split(envoy_image)},
            "application": {"image": split(agent_image), "env": {"AGENT_PERIOD": 0.2}},
            "config": {"providers": {"anthropic": {"base_url": f"http://{node.host}:{provider.port}"}}},
        }
        made = Release(node, namespace, provider, tmp_path, needed)
        try:
            yield made
        finally:
            made.remove()
