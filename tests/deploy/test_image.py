"""What the image leaves out of the packages it installs."""

import asyncio
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fakes.api_server import answer, api_server

ROOT = Path(__file__).parents[2]
PRUNE = ROOT / "deploy" / "release" / "prune_kubernetes.sh"
ASKS = """
import asyncio, sys
from pathlib import Path
from equabot_broker.kube.api import KubeApi

async def ask():
    api = KubeApi(kubeconfig=Path(sys.argv[1]))
    print((await api.get("/api/v1/namespaces/apps/secrets"))["kind"])
    await api.close()
    print(sys.modules["kubernetes.aio.config"].__file__)

asyncio.run(ask())
"""


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """A directory with the package, installed by pip and pruned to less than a tenth of its files."""
    spec = find_spec("kubernetes")
    assert spec is not None
    assert spec.origin is not None
    directory = tmp_path / "site-packages"
    shutil.copytree(Path(spec.origin).parent, directory / "kubernetes", copy_function=os.symlink)
    before = sum(1 for _ in directory.rglob("*.py"))
    subprocess.run([PRUNE, directory], check=True)
    assert sum(1 for _ in directory.rglob("*.py")) < before / 10
    return directory


async def test_the_pruned_client_makes_requests(pruned: Path, tmp_path: Path) -> None:
    """ADR 43: what is left is enough."""
    async with api_server(tmp_path) as server:
        server.otherwise = {"list": answer({"kind": "SecretList", "metadata": {}, "items": []})}
        command = [sys.executable, "-c", ASKS, str(server.kubeconfig)]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join((str(pruned), str(ROOT / "broker")))}
        child = await asyncio.create_subprocess_exec(*command, env=environ, stdout=subprocess.PIPE)
        out, _ = await child.communicate()
    kind, file = out.decode().splitlines()
    assert kind == "SecretList"
    assert file.startswith(str(pruned))


def test_a_package_that_is_arranged_otherwise_is_left_alone(tmp_path: Path) -> None:
    """The build stops before anything is deleted."""
    other = tmp_path / "kubernetes" / "client"
    other.mkdir(parents=True)
    assert subprocess.run([PRUNE, tmp_path], check=False).returncode != 0
    assert other.is_dir()
