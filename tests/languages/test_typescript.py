"""The TypeScript client, on each supported Node.js: Node's own test runner, against a real broker and a fake vendor."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.upstream import Answer, Upstream
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.languages.control import Action, Control
from tests.languages.typescript import CLIENT, ROOT, VERSIONS, build
from tests.tiers import nodes

OPENAI_KEY: Final = "sk-proj-" + "0penai00" * 8
FILES: Final = sorted(CLIENT.glob("test/*.test.mjs"))
CONFIG: Final = """
providers:
  anthropic: {{base_url: "{url}"}}
  openai: {{base_url: "{url}/v1"}}
agents:
  main: {{}}
  narrow: {{providers: [openai]}}
"""


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The client is built once for all tests here."""
    build()


@pytest.fixture
def vendor() -> Iterator[Upstream]:
    with Upstream() as serving:
        yield serving


@pytest.fixture
def broker(vendor: Upstream) -> Iterator[RunningBroker]:
    running = RunningBroker(credentials={}, dotenv=dotenv(KEY), config=CONFIG.format(url=vendor.url))
    try:
        yield running.start()
    finally:
        running.close()


def dotenv(key: str) -> str:
    return f"ANTHROPIC_API_KEY={key}\nOPENAI_API_KEY={OPENAI_KEY}\n"


def environ(broker: RunningBroker, control: Control | None = None) -> dict[str, str]:
    """All that a program of the test sees."""
    url = {} if control is None else {"CONTROL": control.url}
    return {"PATH": os.environ["PATH"], "HOME": str(broker.home), "EQUABOT_RUN_DIR": str(broker.run_dir), **url}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_client(broker: RunningBroker, vendor: Upstream, version: str) -> None:
    """Every file of clients/typescript/test passes. No output of it contains a secret."""

    def start() -> None:
        broker.start()

    def accept(keys: list[str]) -> None:
        vendor.forget()
        vendor.accepted = set(keys)

    actions: dict[str, Action] = {
        "kill": broker.kill,
        "start": start,
        "rotate": lambda key=OTHER_KEY: broker.write_dotenv(dotenv(key)),
        "accept": accept,
        "redirect": lambda to: vendor.answers.append(Answer(302, {"location": to})),
        "received": lambda: [[request.path, request.secret()] for request in vendor.received],
        "suspend": lambda: broker.run("agent", "suspend", "main").returncode,
        "resume": lambda: broker.run("agent", "resume", "main").returncode,
    }
    keys = {"KEY": KEY, "OTHER_KEY": OTHER_KEY, "OPENAI_KEY": OPENAI_KEY}
    with Control(actions) as control:
        ran = subprocess.run(
            [nodes() / f"node-{version}", "--test", "--test-concurrency=1", "--test-reporter=tap", *FILES],
            cwd=CLIENT, env=environ(broker, control) | keys, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
    assert re.search(r"^# pass [1-9]\d+$", ran.stdout, re.MULTILINE), ran.stdout
    for secret in keys.values():
        assert secret not in ran.stdout + ran.stderr + broker.log() + broker.audit()


def test_the_generated_messages_are_current(tmp_path: Path) -> None:
    """They are what `make proto` makes of proto/ now."""
    protoc = f"{sys.executable} -m grpc_tools.protoc"
    if importlib.util.find_spec("grpc_tools") is None:
        protoc = f"{ROOT / '.venv-proto' / 'bin' / 'python'} -m grpc_tools.protoc"
    generate = ["sh", "scripts/generate.sh", str(tmp_path)]
    path = f"{(nodes() / 'node-22').resolve().parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        generate, cwd=CLIENT, env={"PATH": path, "PROTOC": protoc}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    for made in tmp_path.rglob("*.ts"):
        kept = CLIENT / "src" / "gen" / made.relative_to(tmp_path)
        assert made.read_text() == kept.read_text(), "the messages are stale: run `make proto` and commit them"


README: Final = (CLIENT / "README.md").read_text()
EXAMPLES: Final = re.findall(r"```(js|ts)\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(broker: RunningBroker, vendor: Upstream, tmp_path: Path, number: int) -> None:
    """As printed, as a program of its own, with a broker at the default address and a provider behind it."""
    language, text = EXAMPLES[number]
    vendor.accepted = {KEY, OPENAI_KEY}
    (tmp_path / "node_modules").symlink_to(CLIENT / "node_modules")
    linked = CLIENT / "node_modules" / "@equabot"
    linked.mkdir(exist_ok=True)
    if not (linked / "client").exists():
        (linked / "client").symlink_to("../..")
    program = tmp_path / f"agent.m{language}"
    program.write_text(text)
    flags = ["--experimental-strip-types", "--no-warnings"] if language == "ts" else []
    ran = subprocess.run(
        [nodes() / "node-22", *flags, program],
        cwd=tmp_path, env=environ(broker), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    assert KEY not in ran.stdout
    assert bool(vendor.received) == ("fetch" in text)


def test_there_are_examples() -> None:
    """Else the test above proves nothing."""
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("module", ["mts", "cts"])
def test_the_types_hold_for_a_user(tmp_path: Path, module: str) -> None:
    """A strict program of either module system compiles against the built package."""
    (tmp_path / "node_modules" / "@equabot").mkdir(parents=True)
    (tmp_path / "node_modules" / "@equabot" / "client").symlink_to(CLIENT)
    program = tmp_path / f"program.{module}"
    program.write_text((CLIENT / "test" / "types.ts").read_text())
    options = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--target", "es2022"]
    types = ["--lib", "es2023,esnext.disposable", "--types", "node", "--typeRoots", str(CLIENT / "node_modules" / "@types")]
    command = [str(nodes() / "node-22"), str(CLIENT / "node_modules/typescript/bin/tsc"), *options, *types, str(program)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
