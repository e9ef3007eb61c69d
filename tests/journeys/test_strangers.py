"""Another user of the machine, who would like to be the broker."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import EQUABOT, KEY
from tests.strangers import OTHER, as_user

REPOSITORY = Path(__file__).parents[2]
ATTACKERS = "sk-ant-api03-" + "attacker" * 11 + "AA"
FAKE = """
import sys
sys.path.insert(0, sys.argv[1])
import signal
from pathlib import Path
from tests.fakes.broker_servicer import FakeBroker
fake = FakeBroker()
fake.home.rmdir()
fake.secret, fake.address = sys.argv[2], f"unix:{sys.argv[3]}"
fake.start()
Path(sys.argv[3]).chmod(int(sys.argv[4], 8))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A run directory of the other user, in a directory that everyone can pass."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "run" / "main").mkdir(parents=True)
    for path in (made / "run", made / "run" / "main"):
        os.chown(path, OTHER, OTHER)
        path.chmod(0o777)
    yield made / "run"
    shutil.rmtree(made)


@pytest.mark.parametrize("mode", ["0777", "0660"])
def test_the_key_of_a_strangers_broker_is_not_taken(run_dir: Path, mode: str) -> None:
    """S15: a run directory of another user with mode 0777, in which that user answers in the broker's place."""
    where = [str(REPOSITORY), ATTACKERS, str(run_dir / "main" / "broker.sock"), mode]
    environ = {"PATH": os.environ["PATH"], "EQUABOT_HOME": str(run_dir.parent / "home"), "EQUABOT_RUN_DIR": str(run_dir)}
    with subprocess.Popen([*as_user(), sys.executable, "-c", FAKE, *where], stdout=subprocess.PIPE, text=True) as stranger:
        try:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == "ready\n"
            for words in (["key", "anthropic"], ["exec", "anthropic", "--", "env"], ["lease", "acquire", "anthropic"]):
                done = subprocess.run([*EQUABOT, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)
                assert (done.returncode, done.stdout) == (1, "")
                assert "BROKER_NOT_TRUSTED" in done.stderr
                assert f"{run_dir} has mode 0777" in done.stderr
                assert ATTACKERS not in done.stderr
        finally:
            stranger.kill()


def test_a_broker_does_not_start_where_a_stranger_could_take_its_place(run_dir: Path, make_broker: MakeBroker) -> None:
    """S15: it says whose the directory is, and what to do."""
    if os.geteuid():
        pytest.skip("needs root, to give a directory to another user")
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    done = broker.run("serve", "--run-dir", str(run_dir))
    assert done.returncode == 1
    assert f"{run_dir} belongs to user {OTHER}: chown 0 {run_dir}, or choose another place" in done.stderr
    assert not (run_dir / "admin").exists()
