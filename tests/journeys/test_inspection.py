"""What another process of the broker's user can read out of the broker's process."""

import os
import subprocess
import sys

import pytest

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY
from tests.strangers import OTHER, as_user

READ = """
import os, sys
try:
    with open(f"/proc/{sys.argv[1]}/{sys.argv[2]}", "rb") as file:
        if sys.argv[2] == "mem":
            file.seek(int(open(f"/proc/{sys.argv[1]}/maps").readline().partition("-")[0], 16))
        sys.exit(0 if file.read(16) else "nothing")
except OSError as refused:
    sys.exit(refused.strerror)
"""


@pytest.mark.parametrize("file", ["mem", "environ", "maps"])
def test_a_process_of_the_same_user_cannot_read_the_brokers_memory(make_broker: MakeBroker, file: str) -> None:
    """S16: an agent that shares the broker's user neither reads its memory nor the environment that it was started with."""
    user = () if os.geteuid() else as_user()
    broker = make_broker(credentials={"ANTHROPIC_API_KEY": KEY})
    if not os.geteuid():
        os.chown(broker.home, OTHER, OTHER)
    broker.command = (*user, *broker.command)
    broker.start()
    own = "os.getpid()"
    control = READ.replace("sys.argv[1]", own)
    tried = subprocess.run([*user, sys.executable, "-c", control, "", file], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, "the same file of a process of its own can be read"
    tried = subprocess.run(
        [*user, sys.executable, "-c", READ, str(broker.pid), file], capture_output=True, text=True, check=False
    )
    assert (tried.returncode, tried.stderr) == (1, "Permission denied\n")
    assert broker.stop() == 0


def test_a_command_that_the_broker_is_not_is_as_open_as_ever(make_broker: MakeBroker) -> None:
    """`exec` hides itself, and not the command: its user may debug that as before."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    dumpable = "import ctypes; print(ctypes.CDLL(None).prctl(3))"
    assert broker.run("exec", "anthropic", "--", sys.executable, "-c", dumpable).stdout == "1\n"
