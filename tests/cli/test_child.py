"""A child process behaves like one that was started directly."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from equabot_cli import child
from equabot_cli.exits import Failure

_RUN = "import os, sys; from equabot_cli import child\nwith child.held_signals(): sys.exit(child.run("
RUNNER = _RUN + "child.find(sys.argv[1], path=os.environ['PATH']), sys.argv[1:], environment=os.environ))"

REPORTER = textwrap.dedent("""
    import os, signal, sys
    held = [getattr(signal, "SIG" + name) for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")]
    signal.pthread_sigmask(signal.SIG_BLOCK, held)  # handlers and pause() would sleep on a signal that comes between the two
    print("ready", os.getpid(), flush=True)
    while True:
        number = signal.sigwait(held)
        print(number.name, flush=True)
        if number in (signal.SIGTERM, signal.SIGINT): sys.exit(7)
""")


def start(*command: str, **options: object) -> "subprocess.Popen[str]":
    """A process that does nothing but run the command as a child."""
    return subprocess.Popen([sys.executable, "-c", RUNNER, *command], text=True, **options)  # type: ignore[call-overload, no-any-return]


def ran(*command: str) -> "subprocess.CompletedProcess[str]":
    """The same, to its end."""
    return subprocess.run([sys.executable, "-c", RUNNER, *command], text=True, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("code", [0, 1, 3, 64, 255])
def test_the_exit_code_is_the_childs(code: int) -> None:
    """Whatever it is."""
    assert ran("sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_an_end_by_a_signal_is_128_and_its_number(number: signal.Signals) -> None:
    """As shells have it."""
    assert ran("sh", "-c", f"kill -{number.value} $$").returncode == 128 + number


def test_every_forwarded_signal_reaches_the_child_once() -> None:
    """A signal of another process is meant for the child."""
    with start(sys.executable, "-c", REPORTER, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        for name in ("HUP", "QUIT", "USR1", "USR2", "WINCH"):
            process.send_signal(getattr(signal, f"SIG{name}"))
            assert process.stdout.readline() == f"SIG{name}\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "SIGTERM\n"
        assert process.wait(60) == 7


def test_ctrl_c_at_a_terminal_reaches_the_child_once() -> None:
    """The terminal sends it to the whole foreground group. Forwarded again it would come twice: "quit at once", to many."""
    leader, follower = pty.openpty()
    code = REPORTER.replace("sys.exit(7)", "pass")
    with start(sys.executable, "-c", code, stdin=follower, stdout=subprocess.PIPE, preexec_fn=_own_terminal) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        os.write(leader, b"\x03")
        assert process.stdout.readline() == "SIGINT\n"
        os.kill(process.pid, signal.SIGUSR1)
        assert process.stdout.readline() == "SIGUSR1\n"
        os.kill(int(ready[1]), signal.SIGKILL)
        assert process.wait(60) == 128 + 9
    os.close(leader)
    os.close(follower)


def _own_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_the_child_starts_with_no_signal_held_and_none_ignored() -> None:
    """A held SIGTERM or an ignored SIGPIPE would be inherited, and few programs expect that."""
    shown = ran("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status").stdout.split()
    assert shown[0::2] == ["SigBlk:", "SigIgn:"]
    internal = 0b11 << 31  # 32 and 33 belong to the C library, which sets them up itself
    assert [int(mask, 16) & ~internal for mask in shown[1::2]] == [0, 0]


def test_orphans_are_reaped() -> None:
    """As the first process of a container it inherits them. The child waits until its orphaned grandchild has ended."""
    code = textwrap.dedent("""
        import ctypes, os
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as the first process of a container is
        from equabot_cli import child
        with child.held_signals():
            child.run("/bin/sh", ["sh", "-c", "(sleep 0.05 &); sleep 0.5"], environment=os.environ)
        try:
            print("left", os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("none left")
    """)
    shown = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=True).stdout
    assert shown == "none left\n"


def test_an_unknown_command_is_127() -> None:
    """As shells have it."""
    with pytest.raises(Failure) as refused:
        child.find("no-such-command-anywhere", path=os.environ["PATH"])
    assert (refused.value.code, refused.value.message) == (127, "no-such-command-anywhere: command not found")


def test_a_file_that_cannot_be_executed_is_126(tmp_path: Path) -> None:
    """As shells have it."""
    file = tmp_path / "notes.txt"
    file.write_text("")
    with pytest.raises(Failure) as refused:
        child.find(str(file), path=None)
    assert refused.value.code == 126


def test_a_file_that_the_system_cannot_run_is_126(tmp_path: Path) -> None:
    """Executable, and yet no program."""
    file = tmp_path / "broken"
    file.write_bytes(b"\x7fELF nothing")
    file.chmod(0o755)
    with pytest.raises(Failure) as refused:
        child.run(str(file), [str(file)], environment={})
    assert refused.value.code == 126


def test_a_signal_that_came_before_the_child_is_noticed() -> None:
    """Ctrl-C while a lease is being asked for: the command must not start. In a process of its own: a thread of another test
    would take the signal, and end this process."""
    code = textwrap.dedent("""
        import os, signal
        from equabot_cli import child
        with child.held_signals():
            print(child.told_to_stop())
            os.kill(os.getpid(), signal.SIGTERM)
            print(child.told_to_stop().name)
            signal.sigwait({signal.SIGTERM})
    """)
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "None\nSIGTERM\n")
