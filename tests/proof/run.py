"""Eight processes refresh the logins of one store, and die at every step, while the token endpoint does its worst.

    python -m tests.proof.run SECONDS SEED

Prints what happened as JSON, and exits with 1 and what went wrong where a law was broken. The laws stand in `verdict`, the
fault points in `worker`. Processes are forked from this one, which has imported everything and has no thread: a death costs
milliseconds.
"""

import asyncio
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from equabot_broker.engine.refresh.redemption import RedemptionKind
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint
from tests.fakes.token_endpoint import read_ledger
from tests.proof.person import Ended, Person, watch
from tests.proof.verdict import Death, Evidence, summary, violations
from tests.proof.worker import POINTS, Doom, Notes, World, work

PROCESSES: Final = 8
LIFE: Final = 1
LAST_LIFE: Final = 600
"""Seconds that access tokens live which are given at the end, when nothing dies or fails any more: each login gets one."""
SETTLED_WITHIN: Final = 180.0
"""Seconds until no login waits for anything then. On a quiet machine it takes a few; what does not come to rest is a breach."""
SPARED_WITHIN: Final = 180.0
"""Seconds that a run may last longer, until somebody has died at every point: how soon that is depends on the machine."""
STORES: Final = {
    "main": tuple(f"m{number}" for number in range(16)),
    "coder": tuple(f"c{number}" for number in range(8)),
}
FAULTS: Final = {
    "http_500": 0.02, "http_503": 0.02, "http_429": 0.02, "html": 0.015, "empty": 0.01, "redirect": 0.01, "reset_before": 0.02,
    "reset_after": 0.02, "truncated": 0.01, "garbled": 0.01, "slow": 0.01, "drip": 0.02, "same_refresh": 0.02,
    "no_refresh": 0.02, "expires_in_text": 0.02, "invalid_grant": 0.01, "refresh_token_reused": 0.005, "token_revoked": 0.005,
    "other_account": 0.005,
}  # fmt: skip


class Endpoint:
    """The token endpoint, a process of its own that is killed and started again on the same ledger."""

    def __init__(self, ledger: Path, seed: int, *, life: float = LIFE, slowness: float = 0.8) -> None:
        self._ledger = ledger
        self._seed = seed
        self._slowness = slowness
        self._life = life
        self._port = 0
        self.deaths = 0
        self.url = self.start()

    def start(self, *, well_behaved: bool = False) -> str:
        faults, life = ("{}", LAST_LIFE) if well_behaved else (json.dumps(FAULTS), self._life)
        seed = str(self._seed + self.deaths)
        options = ["--life", str(life), "--faults", faults, "--seed", seed, "--slowness", str(self._slowness)]
        program = [sys.executable, "-m", "tests.fakes.token_endpoint", str(self._ledger), str(self._port), *options]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip()
        self._port = int(url.rpartition(":")[2].partition("/")[0])
        return url

    def restart(self, *, well_behaved: bool = False) -> None:
        self.stop()
        self.deaths += 1
        self.start(well_behaved=well_behaved)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Work(Protocol):
    """What a process does until it is told to stop, or dies."""

    def __call__(self, *, slot: int, notes: Notes, doom: Doom, seed: int) -> Coroutine[Any, Any, None]: ...


class Processes:
    """The eight, each replaced when it dies. They die at a point by turns, the `latest` time that they come there, or at a
    random instant until they are `oldest` seconds old; some live on."""

    def __init__(
        self, work: Work, chance: random.Random, *, points: Sequence[str] = POINTS, latest: int = 4, oldest: float = 1.0
    ) -> None:
        self._work = work
        self._chance = chance
        self._latest = latest
        self._oldest = oldest
        self._all_points = points
        self._memory = mmap.mmap(-1, Notes.size * PROCESSES)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._slots: dict[int, int] = {}
        self._doomed_at: dict[int, float] = {}
        self._spoken: dict[int, str] = {}
        self._points: list[str] = []
        self.deaths: list[Death] = []
        self.sound = True

    def keep_going(self, *, mortal: bool = True) -> None:
        """Replaces who died, and kills whose time has come."""
        for slot in set(range(PROCESSES)) - set(self._slots.values()):
            self._start(slot, mortal=mortal)
        now = time.monotonic()
        for pid, at in list(self._doomed_at.items()):
            if now >= at or not mortal:
                del self._doomed_at[pid]
                if mortal:
                    os.kill(pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> None:
        """Takes note of the dead."""
        while self._slots:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid not in self._slots:
                return
            slot = self._slots.pop(pid)
            self._doomed_at.pop(pid, None)
            self._listen()
            point = self._spoken.pop(pid, "")
            if os.WIFSIGNALED(status):
                self.deaths.append(Death(point, Notes(self._memory, slot).in_hand))
            elif os.WEXITSTATUS(status) != 0:
                self.sound = False

    def kill(self) -> None:
        """All of them at once."""
        for pid in self._slots:
            os.kill(pid, signal.SIGKILL)
        while self._slots:
            self.reap()
            time.sleep(0.005)

    def stop(self) -> None:
        """Asks all of them to end, and waits for that."""
        for pid in self._slots:
            os.kill(pid, signal.SIGTERM)
        while self._slots:
            self.reap()
            time.sleep(0.005)

    @property
    def spared(self) -> set[str]:
        """The points at which nobody has died yet."""
        return set(self._all_points) - {death.point for death in self.deaths}

    def counts(self) -> Counter[str]:
        """How rounds ended."""
        names = [*(kind.name.lower() for kind in RedemptionKind), "store_fault"]
        found: Counter[str] = Counter()
        for slot in range(PROCESSES):
            found.update(dict(zip(names, Notes(self._memory, slot).counts, strict=True)))
        return found

    def edits(self) -> dict[str, int]:
        """How often each has written to a store as another program, at least."""
        return {str(slot): Notes(self._memory, slot).edits for slot in range(PROCESSES)}

    def _start(self, slot: int, *, mortal: bool) -> None:
        seed, point, countdown, life = self._chance.getrandbits(32), "", self._chance.randrange(self._latest), 0.0
        drawn = self._chance.random()
        if mortal and drawn < 0.8:
            point = self._next_point()
        elif mortal and drawn < 0.95:
            life = self._chance.uniform(0.02, self._oldest)
        pid = os.fork()
        if pid == 0:
            self._be(slot, seed, point, countdown)
        self._slots[pid] = slot
        if life:
            self._doomed_at[pid] = time.monotonic() + life

    def _next_point(self) -> str:
        if not self._points:
            self._points = self._chance.sample(self._all_points, len(self._all_points))
        return self._points.pop()

    def _be(self, slot: int, seed: int, point: str, countdown: int) -> NoReturn:
        code = 1
        try:
            doom = Doom(point, countdown, lambda told: _tell(self._writer, told))
            asyncio.run(self._work(slot=slot, notes=Notes(self._memory, slot), doom=doom, seed=seed))
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)

    def _listen(self) -> None:
        try:
            text = os.read(self._reader, 1 << 16).decode()
        except BlockingIOError:
            return
        for line in text.splitlines():
            pid, _, point = line.partition(" ")
            self._spoken[int(pid)] = point


def _tell(writer: int, point: str) -> None:
    os.write(writer, f"{os.getpid()} {point}\n".encode())


def settle(processes: Processes, waiting: Callable[[], list[str]]) -> list[str]:
    """Goes on without deaths and faults until no login waits for anything. The breaches: which still do after all that time."""
    end = time.monotonic() + SETTLED_WITHIN
    while (left := waiting()) and time.monotonic() < end:
        look = time.monotonic() + 0.5
        while time.monotonic() < look:
            processes.keep_going(mortal=False)
            time.sleep(0.01)
    return [f"{name} does not come to rest" for name in left]


def waits(entry: Mapping[str, Any]) -> bool:
    """Whether a refresh of this entry, or a person's login, is still to come or not yet finished."""
    marks = [entry[mark] for mark in ("pendingRefresh", "reauthRequired") if mark in entry]
    return entry["expires"] / 1000 < time.time() + LAST_LIFE / 10 or any(mark["digest"] == digest(entry) for mark in marks)


def run(home: Path, seconds: float, seed: int) -> tuple[dict[str, object], list[str]]:
    """What happened, and which laws were broken."""
    chance = random.Random(seed)
    endpoint = Endpoint(home / "ledger", seed)
    world = World(home, endpoint.url, tuple(STORES))
    Person(world, STORES).prepare()
    _import_everything()
    report = home / "seen"
    watcher = os.fork()
    if watcher == 0:
        _watch(world, report)
    processes = Processes(partial(work, world), chance)
    began, restart_at = time.monotonic(), chance.uniform(2, 4)
    while (now := time.monotonic() - began) < seconds or (processes.spared and now < seconds + SPARED_WITHIN):
        processes.keep_going()
        if now > restart_at:
            endpoint.restart()
            restart_at = now + chance.uniform(2, 4)
        time.sleep(0.002)
    endpoint.restart(well_behaved=True)
    restless = settle(processes, lambda: _waiting(home))
    processes.stop()
    os.kill(watcher, signal.SIGTERM)
    os.waitpid(watcher, 0)
    endpoint.stop()
    told, broken = _verdict(home, processes, endpoint)
    return told, [*restless, *broken]


def _stores(home: Path) -> list[dict[str, Any]]:
    return [json.loads((home / "agents" / agent / "agent" / "auth-profiles.json").read_bytes()) for agent in STORES]


def _waiting(home: Path) -> list[str]:
    profiles = [item for raw in _stores(home) for item in raw["profiles"].items()]
    return [name for name, entry in profiles if "refresh" in entry and waits(entry)]


def _verdict(home: Path, processes: Processes, endpoint: Endpoint) -> tuple[dict[str, object], list[str]]:
    seen = json.loads((home / "seen").read_text())
    ended = [Ended(**one) for one in seen["ended"]]
    stores = _stores(home)
    stored = [entry["refresh"] for raw in stores for entry in raw["profiles"].values() if "refresh" in entry]
    gave_up = read_lines(home / "gave-up")
    found = Evidence(read_ledger(home / "ledger"), ended, processes.deaths, stored, gave_up=gave_up)
    broken = [*seen["broken"], *violations(found), *_lost_edits(stores, processes)]
    if not processes.sound:
        broken.append("a process ended by itself")
    told = summary(found, processes.counts()) | {
        "looks at the stores": seen["looks"],
        "deaths of the endpoint": endpoint.deaths,
        "answers that came too late": len(gave_up),
    }
    return told, broken


def read_lines(path: Path) -> frozenset[str]:
    """What the processes have written down there."""
    return frozenset(path.read_text().split()) if path.exists() else frozenset()


def _lost_edits(stores: list[dict[str, dict[str, int]]], processes: Processes) -> list[str]:
    """What another program was told is written is there."""
    tallies: Counter[str] = Counter()
    for raw in stores:
        tallies.update(raw.get("tallies", {}))
    return [f"of {n} edits {tallies[slot]} are there" for slot, n in processes.edits().items() if tallies[slot] < n]


def _import_everything() -> None:
    """Before anybody is forked."""
    import httpx  # noqa: F401

    asyncio.run(asyncio.sleep(0))
    HttpTokenEndpoint()


def _watch(world: World, report: Path) -> NoReturn:
    code = 1
    try:
        watch(world, STORES, report)
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def main() -> None:
    """Runs it in a directory of its own, which stays where something went wrong."""
    seconds, seed = float(sys.argv[1]), int(sys.argv[2])
    home = Path(tempfile.mkdtemp(prefix="refresh-proof-"))
    told, broken = run(home, seconds, seed)
    print(json.dumps(told, indent=1))
    if broken:
        print(f"seed {seed}, {home}:", *broken[:20], sep="\n", file=sys.stderr)
        sys.exit(1)
    subprocess.run(["rm", "-rf", str(home)], check=True)


if __name__ == "__main__":
    main()
