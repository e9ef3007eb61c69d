"""`make run`: a short tour of a broker, an agent in another process, a rotation and health.

The tour takes a few seconds and changes none of your files. It uses the credentials in the environment and in
`~/.equabot/.env`. Without any, it creates a sample key.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Timer
from typing import Any, Final

from equabot_client import EquabotError, connect, health

EQUABOT: Final = (sys.executable, "-m", "equabot_broker")
DEADLINE: Final = 15.0


class Failed(Exception):
    """The tour cannot continue."""


@dataclass(frozen=True)
class Scratch:
    """The home directory of the tour, with the sample credential that the tour rotates."""

    home: Path
    health: str
    rotating: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the tour's broker and of its clients."""
        ours = {"EQUABOT_HOME": str(self.home), "EQUABOT_RUN_DIR": str(self.home / "run"), "EQUABOT_LISTEN_HEALTH": self.health}
        theirs = {name: text for name, text in os.environ.items() if not name.startswith("EQUABOT_")}
        return theirs | ours | {"EQUABOT_LISTEN_METRICS": f"127.0.0.1:{free_port()}"}

    def rotate(self) -> float:
        """Replaces the sample key, as an editor or a deployment would. Returns the monotonic time of the replacement."""
        written = self.rotating.with_name(self.rotating.name + ".new")
        written.write_text(f"ANTHROPIC_API_KEY={sample_key()}\n")
        written.chmod(0o600)
        now = time.monotonic()
        written.replace(self.rotating)
        return now


def main() -> int:
    """Runs the tour, and returns the exit code."""
    if sys.argv[1:2] == ["--agent"]:
        return agent(sys.argv[2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="equabot-demo-") as directory:
            tour(Path(directory))
    except KeyboardInterrupt:
        return 130
    except (Failed, EquabotError, OSError, subprocess.TimeoutExpired) as reason:
        print(f"\nThe tour ended early: {reason}", file=sys.stderr)
        return 1
    return 0


def tour(directory: Path) -> None:
    """Runs every step, and prints each as it happens."""
    own = Path(os.environ.get("EQUABOT_HOME") or "~/.equabot").expanduser() / ".env"
    scratch = Scratch(directory, f"127.0.0.1:{free_port()}", directory / "credentials" / "sample" / ".env")
    scratch.rotating.parent.mkdir(mode=0o700, parents=True)
    sources: list[dict[str, Any]] = [{"dotenv": {"path": str(own)}}, {"env": {}}]
    write_config(scratch, sources)
    found = [profile for profile in profiles(scratch) if profile["status"] in ("ok", "static", "expiring")]
    found.sort(key=lambda profile: (profile["provider"] != "anthropic", not profile["next"]))
    print("Equabot broker: a short tour. It changes none of your files.\n")
    scratch.rotate()
    write_config(scratch, [*sources, {"mounted": {"path": str(directory / "credentials")}}])
    if found:
        show("credentials", f"{len(found)} found in your environment and {own}")
        show("", f"plus a sample key in {scratch.rotating}, to show a rotation")
        profile_id = found[0]["profileId"]
    else:
        show("credentials", f"none in your environment or in {own}")
        show("", f"created a sample key in {scratch.rotating}")
        profile_id = "anthropic:sample"
    began = time.monotonic()
    with broker(scratch) as process:
        show("broker", f"process {process.pid} serves after {time.monotonic() - began:.2f} s")
        show_lease(scratch, profile_id)
        show_rotation(scratch)
        show_health(scratch, profile_id.partition(":")[0])
    show("stopped", f"exit code {process.returncode}; every lease of a stream has ended")
    print(
        "\nNext steps, each in its own terminal:\n"
        "  export ANTHROPIC_API_KEY=…           or add it to ~/.equabot/.env\n"
        "  .venv/bin/equabot serve              run the broker\n"
        "  .venv/bin/equabot models status      show the credentials\n"
        "  .venv/bin/equabot exec anthropic -- env | grep ANTHROPIC\n"
        "  .venv/bin/equabot lease watch anthropic"
    )


def show_lease(scratch: Scratch, profile_id: str) -> None:
    """Shows another process that acquires a lease."""
    with agent_process(scratch, profile_id) as next_line:
        lease = next_line()
        until = datetime.fromisoformat(lease["expires_at"]).astimezone()
        show("lease", f"process {lease['pid']}, as agent main, has a lease on {lease['profile']} until {until:%H:%M:%S}")
        show("", f"secret {lease['label']} (masked), lease {lease['id']}, renewed while the process uses it")


def show_rotation(scratch: Scratch) -> None:
    """Replaces the sample key while a process has a lease on it."""
    with agent_process(scratch, "anthropic:sample") as next_line:
        before = next_line()
        replaced = scratch.rotate()
        after = next_line()
    took = (after["at"] - replaced) * 1000
    show("rotation", f"{scratch.rotating.parent.name}/{scratch.rotating.name} replaced: {before['label']} → {after['label']}")
    show("", f"process {after['pid']} received the new secret after {took:.1f} ms, without a request")


def show_health(scratch: Scratch, provider: str) -> None:
    """Shows the answers of two health probes."""
    words = {True: "SERVING", False: "NOT_SERVING", None: "not known"}
    for service in ("readiness", f"provider/{provider}"):
        show("health" if service == "readiness" else "", f"{service}: {words[health.check(service, address=scratch.health)]}")


def agent(what: str) -> int:
    """The agent, which runs in the other process. It prints each lease as JSON."""
    broker = connect()
    credential = broker.credential(what)
    lease = credential.lease()
    while True:
        at = time.monotonic()
        label = next(profile.label for profile in broker.list_profiles(lease.provider) if profile.id == lease.profile)
        seen = {"pid": os.getpid(), "id": lease.id, "profile": lease.profile, "label": label, "at": at}
        print(json.dumps(seen | {"expires_at": lease.expires_at.isoformat()}), flush=True)
        lease = credential.wait_for_change(since=lease)


@contextmanager
def agent_process(scratch: Scratch, what: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Runs `agent` in its own process. Each call of the returned function waits for the agent's next line."""
    command = [sys.executable, __file__, "--agent", what]
    with subprocess.Popen(command, env=scratch.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for the type
        assert process.stderr is not None  # noqa: S101
        lines, errors = process.stdout, process.stderr

        def next_line() -> dict[str, Any]:
            if line := lines.readline():
                found: dict[str, Any] = json.loads(line)
                return found
            said = errors.read().strip().splitlines()
            raise Failed(f"the agent process ended: {said[-1] if said else 'it printed nothing in time'}")

        deadline = Timer(DEADLINE, process.kill)
        deadline.start()
        try:
            yield next_line
        finally:
            deadline.cancel()
            process.terminate()


@contextmanager
def broker(scratch: Scratch) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs `equabot serve`. Yields when it serves, and stops it at the end."""
    log = scratch.home / "log"
    with log.open("wb") as lines:
        process = subprocess.Popen([*EQUABOT, "serve"], env=scratch.environ, stdout=lines, stderr=lines)
    try:
        deadline = time.monotonic() + DEADLINE
        while not serving(scratch):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the broker did not start:\n{log.read_text()}")
            time.sleep(0.01)
        yield process
        process.send_signal(signal.SIGTERM)
        if process.wait(DEADLINE) != 0:
            raise Failed(f"the broker stopped with {process.returncode}:\n{log.read_text()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def serving(scratch: Scratch) -> bool:
    """Whether the broker has read the sample key. Faults in your own sources do not matter here."""
    with suppress(EquabotError):
        return health.check("profile/anthropic:sample", address=scratch.health, timeout=1.0) is True
    return False


def profiles(scratch: Scratch) -> list[dict[str, Any]]:
    """The profiles that the sources have, without a broker."""
    command = [*EQUABOT, "models", "status", "--json"]
    done = subprocess.run(command, env=scratch.environ, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip())
    found: list[dict[str, Any]] = json.loads(done.stdout)["auth"]["oauth"]["profiles"]
    return found


def write_config(scratch: Scratch, sources: list[dict[str, Any]]) -> None:
    """Writes the configuration as JSON, which is valid YAML."""
    (scratch.home / "equabot.yaml").write_text(json.dumps({"sources": sources}))


def sample_key() -> str:
    """Returns a sample in the format of an Anthropic key, which no provider accepts."""
    return f"sk-ant-api03-{secrets.token_urlsafe(69)}AA"


def free_port() -> int:
    """Returns a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show(what: str, text: str) -> None:
    """Prints one line of the tour."""
    head = f"{what:12}"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        head = f"\x1b[1m{head}\x1b[0m"
    print(f"  {head} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
