"""A real broker process in a home of its own, and the real command line beside it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import pytest

from equabot_client import Broker, EquabotError, connect, health
from tests.ports import free_port

EQUABOT: Final = (sys.executable, "-m", "equabot_broker")
KEY: Final = "sk-ant-api03-" + "journey0" * 11 + "AA"
OTHER_KEY: Final = "sk-ant-api03-" + "rotated0" * 11 + "AA"
_DEADLINE: Final = 60.0


class RunningBroker:
    """`equabot serve`, started as a process; its files lie in `home`, which goes with it.

    `environ` is the whole environment of the broker and of the commands run beside it, which get no credentials from it;
    `command` is what starts it.
    """

    def __init__(self, *, credentials: Mapping[str, str], dotenv: str, config: str) -> None:
        # Not pytest's own directory: a socket's path has at most 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="equabot-"))
        self.run_dir = self.home / "run"
        self.dotenv = self.home / ".env"
        self.log_file = self.home / "log"
        self.audit_file = self.home / "audit"
        self.health = f"127.0.0.1:{free_port()}"
        self.metrics = f"127.0.0.1:{free_port()}"
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "EQUABOT_HOME": str(self.home),
            "EQUABOT_RUN_DIR": str(self.run_dir),
            "EQUABOT_LISTEN_HEALTH": self.health,
            "EQUABOT_LISTEN_METRICS": self.metrics,
        }
        self.credentials = dict(credentials)
        self.command: Sequence[str] = (*EQUABOT, "serve")
        self.process: subprocess.Popen[bytes] | None = None
        if dotenv:
            self.write_dotenv(dotenv)
        if config:
            (self.home / "equabot.yaml").write_text(config)

    def start(self, *options: str, service: str = "readiness") -> Self:
        """Starts it and returns once the service serves."""
        with self.log_file.open("ab") as log, self.audit_file.open("ab") as audit:
            environ = self.environ | self.credentials
            self.process = subprocess.Popen([*self.command, *options], env=environ, stdout=audit, stderr=log)
        self.wait_healthy(service)
        return self

    def wait_healthy(self, service: str = "readiness", *, serving: bool = True, within: float = _DEADLINE) -> None:
        """Returns once health says so of the service."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"the broker has ended:\n{self.log()}"
            with suppress(EquabotError):
                if health.check(service, address=self.health, timeout=1) is serving:
                    return
            time.sleep(0.01)
        raise AssertionError(f"{service} is not {'' if serving else 'not '}serving after {within} s:\n{self.log()}")

    def connect(self, agent: str = "main") -> Broker:
        """A client of it, speaking as the agent."""
        return connect(str(self.socket(agent)), timeout=60)

    def socket(self, agent: str = "main") -> Path:
        """Where the agent speaks to it; `admin` for its operator."""
        return self.run_dir / agent / "broker.sock"

    def run(self, *arguments: str, stdin: str | None = None, **environ: str) -> "subprocess.CompletedProcess[str]":
        """A command of `equabot`, to its end."""
        return subprocess.run(
            [*EQUABOT, *arguments],
            env=self.environ | environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_DEADLINE,
            check=False,
        )

    def spawn(self, *arguments: str, **environ: str) -> "subprocess.Popen[str]":
        """A command of `equabot` that lasts."""
        return subprocess.Popen(
            [*EQUABOT, *arguments],
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_output(self, *arguments: str, until: Callable[[str], bool]) -> None:
        """Returns once the command prints what is waited for."""
        deadline = time.monotonic() + _DEADLINE
        while not until(printed := self.run(*arguments).stdout):
            assert time.monotonic() < deadline, f"equabot {' '.join(arguments)} still prints:\n{printed}"

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Returns once it has happened."""
        deadline = time.monotonic() + _DEADLINE
        while not happened():
            assert time.monotonic() < deadline, f"it does not happen:\n{self.log()}"
            time.sleep(0.005)

    def write_dotenv(self, text: str) -> None:
        """Replaces `.env` as an editor would: at once."""
        written = self.dotenv.with_name(".env.new")
        written.write_text(text)
        written.replace(self.dotenv)

    def scrape(self, path: str = "metrics") -> str:
        """Its metrics, or another page of that server."""
        with urllib.request.urlopen(f"http://{self.metrics}/{path}", timeout=60) as page:
            text: str = page.read().decode()
        return text

    def log(self) -> str:
        """Everything that it has written to its standard error."""
        return self._lines(self.log_file)

    def audit(self) -> str:
        """Its standard output: audit records, unless its configuration sends them elsewhere."""
        return self._lines(self.audit_file)

    def _lines(self, path: Path) -> str:
        """What the file has: while the process writes, its complete lines, as a read can see half of a write."""
        running = self.process is not None and self.process.poll() is None
        written = path.read_bytes() if path.exists() else b""
        return (written[: written.rfind(b"\n") + 1] if running else written).decode()

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def maps(self) -> str:
        """The files that its process has in memory. It shows them to root alone."""
        if os.geteuid():
            pytest.skip("needs root, to look into the broker's process")
        return Path(f"/proc/{self.pid}/maps").read_text()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait_ended(self) -> int:
        """Its exit code, once it has ended; minus the signal that ended it."""
        assert self.process is not None
        return self.process.wait(_DEADLINE)

    def end(self, number: signal.Signals) -> int:
        """Sends it a signal that ends it; returns its exit code."""
        self.send(number)
        return self.wait_ended()

    def kill(self) -> None:
        """`kill -9`."""
        self.end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns its exit code."""
        return self.end(signal.SIGTERM)

    def close(self) -> None:
        """Ends it, however it is, and takes its files away."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        shutil.rmtree(self.home, ignore_errors=True)
