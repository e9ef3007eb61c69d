"""`make run`, the first thing a newcomer sees."""

import os
import re
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "deploy" / "demo.py"
KEY = "sk-ant-api03-" + "machines" * 11 + "AA"


def tour(home: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The tour on a machine with this home."""
    env = {"PATH": os.environ["PATH"], "HOME": str(home), **environ}
    return subprocess.run([sys.executable, DEMO], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_machine_without_a_key_gets_a_sample(tmp_path: Path) -> None:
    """It says so, leaves nothing behind, and shows every step."""
    done = tour(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "created a sample key" in done.stdout
    assert re.search(r"received the new secret after [0-9.]+ ms", done.stdout)
    assert "readiness: SERVING" in done.stdout
    assert "provider/anthropic: SERVING" in done.stdout
    assert "exit code 0" in done.stdout
    assert len(done.stdout.splitlines()) <= 24
    assert list(tmp_path.iterdir()) == []


def test_a_machine_with_a_key_is_shown_its_own(tmp_path: Path) -> None:
    """Masked, and untouched; the rotation happens to a made-up one."""
    own = tmp_path / ".equabot" / ".env"
    own.parent.mkdir()
    own.write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    done = tour(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "has a lease on anthropic:dotenv" in done.stdout
    assert "sk-a…esAA" in done.stdout
    assert KEY not in done.stdout
    assert re.search(r"received the new secret after [0-9.]+ ms", done.stdout)
    assert own.read_text() == f"ANTHROPIC_API_KEY={KEY}\n"
    assert list(own.parent.iterdir()) == [own]
