"""The agent in Go of examples/go: its messages are generated from proto/, and it runs against a real broker."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.upstream import Upstream
from tests.journeys.running import KEY, RunningBroker
from tests.tiers import program, require

ROOT: Final = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built as the example says. `make check` has made the environment that holds protoc."""
    require("go")
    protoc = ROOT / ".venv-proto" / "bin" / "python"
    if not protoc.exists():
        pytest.skip("go: no protoc; `make check` installs one")
    tree = tmp_path_factory.mktemp("go")
    shutil.copytree(ROOT / "examples" / "go", tree / "examples" / "go", ignore=shutil.ignore_patterns("equabot"))
    (tree / "proto").symlink_to(ROOT / "proto")
    go = program("go")
    assert go is not None
    path = f"{go.parent}:{os.environ['PATH']}"
    environ = os.environ | {"PATH": path, "PROTOC": f"{protoc} -m grpc_tools.protoc"}
    for command in (["./generate"], ["go", "build", "-o", "agent", "."]):
        made = subprocess.run(command, cwd=tree / "examples" / "go", env=environ, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
    return tree / "examples" / "go" / "agent"


@pytest.fixture
def vendor() -> Iterator[Upstream]:
    with Upstream() as serving:
        yield serving


@pytest.fixture
def broker(vendor: Upstream) -> Iterator[RunningBroker]:
    config = f'providers:\n  anthropic: {{base_url: "{vendor.url}"}}\n'
    running = RunningBroker(credentials={}, dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=config)
    try:
        yield running
    finally:
        running.close()


def ask(agent: Path, broker: RunningBroker, provider: str) -> "subprocess.CompletedProcess[str]":
    environ = {"EQUABOT_RUN_DIR": str(broker.run_dir)}
    return subprocess.run([agent, provider], env=environ, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.timeout(600)
def test_the_agent_uses_the_key_and_does_not_print_it(agent: Path, broker: RunningBroker, vendor: Upstream) -> None:
    """The provider gets the key; the terminal does not."""
    broker.start()
    ran = ask(agent, broker, "anthropic")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "anthropic:dotenv until" in ran.stdout
    assert [request.secret() for request in vendor.received] == [KEY]
    assert KEY not in ran.stdout


@pytest.mark.timeout(600)
def test_the_agent_reports_the_reason(agent: Path, broker: RunningBroker) -> None:
    """A refusal has its reason, and a missing broker has the remedy."""
    assert "start one with `equabot serve`" in ask(agent, broker, "anthropic").stderr
    broker.start()
    assert "PROVIDER_UNKNOWN: " in ask(agent, broker, "antropic").stderr
