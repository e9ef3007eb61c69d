"""SIGHUP as a broker's process receives it, from its start."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.fakes.host import Host

RECEIVES = """
import os, signal, sys
from equabot_broker.cli.hangups import Hangups
hangups = Hangups()
os.kill(os.getpid(), signal.SIGHUP)
hangups.subscribe(lambda gone: print("received, terminal closed:", gone, flush=True))
print("ready", flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), signal.SIGHUP)
print("done", flush=True)
"""


def test_a_signal_before_the_subscription_is_delivered_later(tmp_path: Path) -> None:
    """P24: while a broker starts, a signal is kept, and does not end the process."""
    command = [sys.executable, "-c", RECEIVES]
    done = subprocess.run(command, input="x", capture_output=True, text=True, timeout=60, check=True, start_new_session=True)
    assert done.stdout.splitlines() == ["received, terminal closed: False", "ready", "received, terminal closed: False", "done"]


def test_one_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """P24: as under nohup."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = [sys.executable, "-c", RECEIVES]
    done = subprocess.run(command, input="x", capture_output=True, text=True, timeout=60, check=True, preexec_fn=ignore)
    assert done.stdout.splitlines() == ["ready", "done"]


def test_a_broker_ends_with_its_terminal(host: Host) -> None:
    """P24: a window that is closed leaves no broker behind."""
    host.write_config("listen: {health: '127.0.0.1:0', metrics: '127.0.0.1:0'}\n")
    with host.at_terminal("serve") as person:
        person.reads("started")
        person.hangs_up()
        assert person.process.wait(60) in (0, 120)  # 120: the interpreter's last words found no terminal
