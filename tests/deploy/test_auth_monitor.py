"""The monitor, run for real: beside a stand-in `equabot` whose answer is known, and beside the real one."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MONITOR = ROOT / "deploy" / "equabot-auth-monitor"
LINES = (
    r"anthropic:manual\texpired\texpired 2h ago\tprofile_store\n"
    r"openai:env\tstatic\t-\tenv\n"
    r"groq:\tmissing\t-\t-\n"
)


class Monitored:
    """A host with the monitor. What was told is in `told`, a message after the other."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.told = home / "told"
        self.environ: dict[str, str] = {
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(home),
            "EQUABOT_NOTIFY_COMMAND": f'printf "%s\\n--\\n" "$EQUABOT_MESSAGE" >>{self.told}',
        }
        (home / "bin").mkdir()

    def program(self, name: str, script: str) -> None:
        """A stand-in on PATH."""
        path = self.home / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def equabot(self, code: int, lines: str = LINES) -> None:
        """What the check answers from now on."""
        self.program("equabot", f'echo "$@" >{self.home}/asked; printf "{lines}"; exit {code}')

    def run(self, script: Path = MONITOR, /, **environ: str) -> "subprocess.CompletedProcess[str]":
        """One run of the monitor."""
        command = ["sh", str(script)]
        return subprocess.run(command, env=self.environ | environ, capture_output=True, text=True, timeout=60, check=False)

    @property
    def messages(self) -> list[str]:
        """What somebody was told."""
        return self.told.read_text().split("--\n")[:-1] if self.told.exists() else []

    def age(self, minutes: float) -> None:
        """Lets time pass since the last message."""
        stamp = self.home / ".local/state/equabot/auth-monitor.notified"
        then = time.time() - minutes * 60
        os.utime(stamp, (then, then))


@pytest.fixture
def monitored(tmp_path: Path) -> Monitored:
    return Monitored(tmp_path)


def test_what_is_well_is_not_told(monitored: Monitored) -> None:
    """Exit 0, and not a word."""
    monitored.equabot(0)
    done = monitored.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert monitored.messages == []
    assert (monitored.home / "asked").read_text() == "models status --check --plain\n"


@pytest.mark.parametrize(
    ("code", "summary"),
    [
        (1, "a credential has expired, is missing or is refused"),
        (2, "a credential is about to expire"),
        (64, "the credentials could not be checked (exit 64)"),
    ],
)
def test_what_is_not_is_told_and_is_its_exit_code(monitored: Monitored, code: int, summary: str) -> None:
    """Names and states, and none of what is well; in the journal as well."""
    monitored.equabot(code)
    done = monitored.run()
    assert (done.returncode, done.stdout) == (code, "")
    name = os.uname().nodename
    message = f"equabot on {name}: {summary}\nanthropic:manual: expired, expired 2h ago\ngroq:: missing\n"
    assert monitored.messages == [message]
    assert done.stderr == message


def test_it_is_told_at_most_once_an_hour(monitored: Monitored) -> None:
    """However often it runs, and whatever happens in between."""
    monitored.equabot(2)
    assert [monitored.run().returncode for _ in range(3)] == [2, 2, 2]
    monitored.equabot(0)
    monitored.run()
    monitored.equabot(1)
    monitored.age(58)
    assert monitored.run().returncode == 1
    assert len(monitored.messages) == 1
    monitored.age(61)
    monitored.run()
    monitored.run()
    assert len(monitored.messages) == 2
    monitored.run(EQUABOT_NOTIFY_MINUTES="0")
    assert len(monitored.messages) == 3


def test_a_command_that_fails_is_tried_again(monitored: Monitored) -> None:
    """Nobody was told, so the hour does not begin."""
    monitored.equabot(1)
    failed = monitored.run(EQUABOT_NOTIFY_COMMAND="exit 7")
    assert failed.returncode == 1
    assert "the notification command failed" in failed.stderr
    monitored.run()
    assert len(monitored.messages) == 1


def test_without_a_command_it_only_says_so(monitored: Monitored) -> None:
    """The journal has it."""
    monitored.equabot(1)
    done = monitored.run(EQUABOT_NOTIFY_COMMAND="")
    assert (done.returncode, "anthropic:manual: expired" in done.stderr) == (1, True)


def test_the_message_comes_on_standard_input_too(monitored: Monitored) -> None:
    """As `mail` and `curl -d @-` want it; what is in it is no shell's to read."""
    monitored.equabot(1, r"anthropic:x\tinvalid\t-\t\$(touch pwned)\n")
    monitored.run(EQUABOT_NOTIFY_COMMAND=f"cat >{monitored.told}", EQUABOT="equabot")
    assert "anthropic:x: invalid" in monitored.told.read_text()
    assert not list(monitored.home.rglob("pwned"))


def test_a_program_that_is_not_there_is_told(monitored: Monitored) -> None:
    """A monitor that cannot look must not look like one that finds nothing."""
    done = monitored.run(EQUABOT="/nowhere/equabot")
    assert done.returncode == 127
    assert "could not be checked (exit 127)" in monitored.messages[0]


def test_a_units_state_directory_is_used(monitored: Monitored) -> None:
    """systemd gives one."""
    monitored.equabot(1)
    monitored.run(STATE_DIRECTORY=str(monitored.home / "state"))
    assert (monitored.home / "state" / "auth-monitor.notified").exists()


def test_beside_the_real_equabot(monitored: Monitored) -> None:
    """Nothing is missing, a token ends, a token has ended; and never a byte of it."""
    token = "sk-ant-oat01-" + "m0n1t0r" * 12
    monitored.program("equabot", f'exec {sys.executable} -m equabot_broker "$@"')

    def paste(life: str) -> None:
        command = ["equabot", "models", "auth", "paste-token", "--provider", "anthropic", "--expires-in", life]
        subprocess.run(
            command, env=monitored.environ | _own(monitored.home), input=token, text=True, check=True, capture_output=True
        )

    def code(expected: int, text: str) -> None:
        done = monitored.run(**_own(monitored.home))
        assert (done.returncode, text in done.stderr) == (expected, True), done.stderr
        assert "m0n1t0r" not in done.stderr + "".join(monitored.messages)

    code(1, "has expired, is missing")
    paste("90d")
    code(0, "")
    paste("3h")
    code(2, "anthropic:manual: expiring, expires in ")
    paste("1ms")
    code(1, "anthropic:manual: expired")
    assert len(monitored.messages) == 1


def _own(home: Path) -> dict[str, str]:
    return {"EQUABOT_HOME": str(home / "eq"), "EQUABOT_RUN_DIR": str(home / "run")}


# -- Termux ------------------------------------------------------------------------------------------------------------


def test_on_a_phone_it_becomes_a_notification(monitored: Monitored) -> None:
    """Scheduled every half hour, also after a restart; the message is one argument, whatever is in it."""
    recorded = monitored.home / "recorded"
    for name in ("termux-job-scheduler", "termux-notification"):
        monitored.program(name, f'printf "%s|" {name} "$@" >>{recorded}; echo >>{recorded}')
    assert monitored.run(ROOT / "deploy/termux/schedule").returncode == 0
    to = monitored.home / ".equabot" / "bin"
    asked = recorded.read_text().strip()
    assert asked == (
        f"termux-job-scheduler|--job-id|7262|--script|{to}/equabot-auth-monitor-termux|--period-ms|1800000|--persisted|true|"
    )
    recorded.unlink()
    monitored.equabot(2, r"anthropic:manual\texpiring\texpires in 3h\tprofile_store\n")
    del monitored.environ["EQUABOT_NOTIFY_COMMAND"]
    assert [monitored.run(to / "equabot-auth-monitor-termux").returncode for _ in range(2)] == [2, 2]
    told = recorded.read_text()
    assert told.count("termux-notification|") == 1
    assert "--title|Equabot|--content|equabot on " in told
    assert "anthropic:manual: expiring, expires in 3h|" in told


def test_without_termux_api_scheduling_says_so(monitored: Monitored) -> None:
    """Nothing is put anywhere."""
    done = monitored.run(ROOT / "deploy/termux/schedule")
    assert done.returncode == 1
    assert "pkg install termux-api" in done.stderr
    assert not (monitored.home / ".equabot").exists()


def test_the_scripts_are_plain_sh() -> None:
    """Termux and BusyBox have no bash; `dash` takes nothing that POSIX does not have."""
    shell = shutil.which("dash") or "sh"
    for script in (MONITOR, *sorted((ROOT / "deploy/termux").iterdir())):
        assert subprocess.run([shell, "-n", str(script)], check=False).returncode == 0
        assert os.access(script, os.X_OK)
