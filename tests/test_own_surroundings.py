"""The tests themselves: they pass however, where and next to what they are started."""

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*named: str, before: Callable[[], object] | None = None, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Another run of pytest, of the tests that are named; `before` happens in its process, before it begins."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *named]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environ, preexec_fn=before, capture_output=True, text=True, timeout=110, check=False
    )  # fmt: skip


def test_with_the_interrupt_ignored() -> None:
    """T2: as CI systems and `nohup … &` start a program."""
    done = run(
        "tests/cli/test_main.py::test_ctrl_c_is_130_without_a_word",
        "tests/cli/test_prompting.py::test_ctrl_c_gives_the_echo_back",
        "tests/cli/test_auth_login.py::test_giving_up_leaves_the_terminal_as_it_was",
        "tests/cli/test_child.py::test_the_child_starts_with_no_signal_held_and_none_ignored",
        before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (done.returncode, "4 passed" in done.stdout) == (0, True), done.stdout


def test_next_to_a_broker_on_the_ports_by_default() -> None:
    """T3: a developer's own has 8686, 9464 and 8787."""
    with ExitStack() as listening:
        for port in (8686, 9464, 8787):
            taken = listening.enter_context(socket.socket())
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                taken.bind(("127.0.0.1", port))
                taken.listen()
            except OSError:  # there is one already
                continue
        done = run("tests/cli/test_main.py", "-k", "gateway")
    assert done.returncode == 0, done.stdout


def test_no_test_ends_its_runner() -> None:
    """T4: a test that signals itself after one that has started an event loop."""
    signals = "tests/cli/test_child.py::test_a_signal_that_came_before_the_child_is_noticed"
    done = run("tests/upstream/test_token_endpoint.py", signals)
    assert (done.returncode, "passed" in done.stdout) == (0, True), done.stdout


def test_in_a_temporary_directory_with_a_longer_name() -> None:
    """T6: a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="x" * 60) as longer:
        done = run("tests/clients/test_address.py", TMPDIR=longer)
    assert done.returncode == 0, done.stdout


def test_the_fast_ones_come_without_programs() -> None:
    """T9: `make test-fast` starts neither Docker nor Envoy nor a cluster."""
    kept = {"containers", "deploy", "storage"}
    others = [f"--ignore={path}" for path in (ROOT / "tests").iterdir() if path.name not in kept and path.name != "conftest.py"]
    done = run("--only", "fast", "--collect-only", "tests", *others)
    assert done.returncode == 0, done.stdout + done.stderr
    collected = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert collected
    assert all(file.startswith("tests/storage/") for file in collected)


def test_the_python_of_the_image_is_tested() -> None:
    """T8: what ships runs on another Python than the lock; the fast tests run on that one, too."""
    (shipped,) = re.findall(r"^ARG BASE_IMAGE=python:(3\.\d+)-", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    (tested,) = re.findall(r"\bpython=(3\.\d+)", (ROOT / "deploy/ci/docker").read_text())
    assert tested == shipped
    assert "deploy/ci/newest-python" in (ROOT / ".ci/run").read_text()


_CLOCKS = {f"time.{name}" for name in ("monotonic", "perf_counter", "process_time")}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_asserts_how_long_something_took(path: Path) -> None:
    """T7: a busy machine is no fault of the product; `make bench` measures."""
    asserted = (node.test for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert))
    differences = (node.left for test in asserted for node in ast.walk(test) if isinstance(node, ast.BinOp))
    assert not [ast.unparse(left) for left in differences if isinstance(left, ast.Call) and ast.unparse(left.func) in _CLOCKS]
