"""`make run`: a broker, an agent in another process, a rotation, health. Touches none of your files; takes a few seconds.

It works on the machine's own environment and `~/.equabot/.env`. Where no key is found there, it makes one up.
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
    """The tour cannot go on."""


@dataclass(frozen=True)
class Scratch:
    """A home for the tour, with the one credential in it that is there to be rotated."""

    home: Path
    health: str
    rotating: Path

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment, for a broker of our own and for those who use it."""
        ours = {"EQUABOT_HOME": str(self.home), "EQUABOT_RUN_DIR": str(self.home / "run"), "EQUABOT_LISTEN_HEALTH": self.health}
        theirs = {name: text for name, text in os.environ.items() if not name.startswith("EQUABOT_")}
        return theirs | ours | {"EQUABOT_LISTEN_METRICS": f"127.0.0.1:{free_port()}"}

    def rotate(self) -> float:
        """Replaces the made-up key by another, as an editor or a deployment would. Returns when it was there."""
        written = self.rotating.with_name(self.rotating.name + ".new")
        written.write_text(f"ANTHROPIC_API_KEY={made_up_key()}\n")
        written.chmod(0o600)
        now = time.monotonic()
        written.replace(self.rotating)
        return now


def main() -> int:
    """The tour."""
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
    """Every step, told as it happens."""
    own = Path(os.environ.get("EQUABOT_HOME") or "~/.equabot").expanduser() / ".env"
    scratch = Scratch(directory, f"127.0.0.1:{free_port()}", directory / "credentials" / "sample" / ".env")
    scratch.rotating.parent.mkdir(mode=0o700, parents=True)
    sources: list[dict[str, Any]] = [{"dotenv": {"path": str(own)}}, {"env": {}}]
    write_config(scratch, sources)
    found = [profile for profile in profiles(scratch) if profile["status"] in ("ok", "static", "expiring")]
    found.sort(key=lambda profile: (profile["provider"] != "anthropic", not profile["next"]))
    print("Equabot broker, a short tour. None of your files is touched.\n")
    scratch.rotate()
    write_config(scratch, [*sources, {"mounted": {"path": str(directory / "credentials")}}])
    if found:
        tell("credentials", f"{len(found)} found in your environment and {own}")
        tell("", f"a made-up key beside them in {scratch.rotating}, to show a rotation on")
        profile_id = found[0]["profileId"]
    else:
        tell("credentials", f"none in your environment nor in {own}:")
        tell("", f"wrote a sample with a made-up key, {scratch.rotating}")
        profile_id = "anthropic:sample"
    began = time.monotonic()
    with broker(scratch) as process:
        tell("broker", f"process {process.pid} serves after {time.monotonic() - began:.2f} s")
        show_lease(scratch, profile_id)
        show_rotation(scratch)
        show_health(scratch, profile_id.partition(":")[0])
    tell("stopped", f"exit code {process.returncode}; every lease that a stream held has ended")
    print(
        "\nTry next, each in a terminal of its own:\n"
        "  export ANTHROPIC_API_KEY=…           or put it into ~/.equabot/.env\n"
        "  .venv/bin/equabot serve              the broker\n"
        "  .venv/bin/equabot models status      what it has found\n"
        "  .venv/bin/equabot exec anthropic -- env | grep ANTHROPIC\n"
        "  .venv/bin/equabot lease watch anthropic"
    )


def show_lease(scratch: Scratch, profile_id: str) -> None:
    """Another process takes a lease."""
    with agent_process(scratch, profile_id) as told:
        lease = told()
        until = datetime.fromisoformat(lease["expires_at"]).astimezone()
        tell("lease", f"process {lease['pid']}, as agent main, holds {lease['profile']} until {until:%H:%M:%S}")
        tell("", f"secret {lease['label']} (masked here), lease {lease['id']}, renewed while it is held")


def show_rotation(scratch: Scratch) -> None:
    """The made-up key is replaced while a process holds a lease on it."""
    with agent_process(scratch, "anthropic:sample") as told:
        before = told()
        replaced = scratch.rotate()
        after = told()
    took = (after["at"] - replaced) * 1000
    tell("rotation", f"{scratch.rotating.parent.name}/{scratch.rotating.name} replaced: {before['label']} → {after['label']}")
    tell("", f"process {after['pid']} had the new secret after {took:.1f} ms, without asking")


def show_health(scratch: Scratch, provider: str) -> None:
    """What a probe is told, before and after the made-up key has gone."""
    words = {True: "SERVING", False: "NOT_SERVING", None: "not known"}
    for service in ("readiness", f"provider/{provider}"):
        tell("health" if service == "readiness" else "", f"{service}: {words[health.check(service, address=scratch.health)]}")


def agent(what: str) -> int:
    """The other process. This is all that an agent does; it tells what it sees, in JSON."""
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
    """Runs `agent` in a process of its own. Each call of what it gives waits for the next thing that the agent tells."""
    command = [sys.executable, __file__, "--agent", what]
    with subprocess.Popen(command, env=scratch.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - for the type
        assert process.stderr is not None  # noqa: S101
        lines, errors = process.stdout, process.stderr

        def heard() -> dict[str, Any]:
            if line := lines.readline():
                found: dict[str, Any] = json.loads(line)
                return found
            said = errors.read().strip().splitlines()
            raise Failed(f"the agent's process ended: {said[-1] if said else 'nothing came in time'}")

        impatience = Timer(DEADLINE, process.kill)
        impatience.start()
        try:
            yield heard
        finally:
            impatience.cancel()
            process.terminate()


@contextmanager
def broker(scratch: Scratch) -> Iterator["subprocess.Popen[bytes]"]:
    """`equabot serve`, from SERVING to its end."""
    log = scratch.home / "log"
    with log.open("wb") as lines:
        process = subprocess.Popen([*EQUABOT, "serve"], env=scratch.environ, stdout=lines, stderr=lines)
    try:
        deadline = time.monotonic() + DEADLINE
        while not serving(scratch):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the broker does not serve:\n{log.read_text()}")
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
    """Whether the broker has read the made-up key; your own sources may have faults, which health then shows."""
    with suppress(EquabotError):
        return health.check("profile/anthropic:sample", address=scratch.health, timeout=1.0) is True
    return False


def profiles(scratch: Scratch) -> list[dict[str, Any]]:
    """What there is, found without a broker."""
    command = [*EQUABOT, "models", "status", "--json"]
    done = subprocess.run(command, env=scratch.environ, capture_output=True, text=True, timeout=DEADLINE, check=False)
    if done.returncode != 0:
        raise Failed(done.stderr.strip())
    found: list[dict[str, Any]] = json.loads(done.stdout)["auth"]["oauth"]["profiles"]
    return found


def write_config(scratch: Scratch, sources: list[dict[str, Any]]) -> None:
    """JSON is YAML."""
    (scratch.home / "equabot.yaml").write_text(json.dumps({"sources": sources}))


def made_up_key() -> str:
    """Looks like a key of Anthropic, and opens nothing."""
    return f"sk-ant-api03-{secrets.token_urlsafe(69)}AA"


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tell(what: str, said: str) -> None:
    """One line of the tour."""
    head = f"{what:12}"
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        head = f"\x1b[1m{head}\x1b[0m"
    print(f"  {head} {said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
