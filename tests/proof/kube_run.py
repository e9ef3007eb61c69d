"""Eight processes, as on eight nodes, refresh the logins in a few Secrets, and die at every step, while the token endpoint and
the API server do their worst, people edit the Secrets, and the nodes' clocks are apart.

    python -m tests.proof.kube_run SECONDS SEED

Prints what happened as JSON, and exits with 1 and what went wrong where a law was broken. The laws stand in `verdict`, the
fault points in `kube_worker`.
"""

import asyncio
import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import httpx

from equabot_broker.kube._client import import_client
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint
from tests.fakes.token_endpoint import read_ledger
from tests.kubernetes.api import Api
from tests.proof.kube_person import KubePerson, logins_of, watch
from tests.proof.kube_worker import DOUBTFUL, LIFE, POINTS, WITHIN, KubeWorld, work
from tests.proof.person import Ended
from tests.proof.run import Endpoint, Processes, read_lines, settle, waits
from tests.proof.verdict import Evidence, summary, violations

SECRETS: Final = tuple(f"s{number}" for number in range(15))


class Server:
    """The API server, in a process of its own."""

    def __init__(self, home: Path, seed: int) -> None:
        program = [sys.executable, "-m", "tests.proof.kube_server", str(home), str(seed)]
        self._process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.namespace = self._heard()

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def calm(self) -> str:
        """Returns once it is there for good, with what was done to it."""
        self.tell("calm")
        return self._heard()

    def end(self) -> None:
        self.tell("end")
        self._process.wait()

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def run(home: Path, seconds: float, seed: int) -> tuple[dict[str, object], list[str]]:
    """What happened, and which laws were broken."""
    chance = random.Random(seed)
    server = Server(home, seed)
    endpoint = Endpoint(home / "ledger", seed, life=LIFE, slowness=2 * WITHIN)
    world = KubeWorld(home / "kubeconfig", server.namespace, endpoint.url, SECRETS)
    with Api.of(world.kubeconfig) as api:
        KubePerson(world, api, seed).prepare()
    _import_everything()
    report = home / "seen"
    watcher = os.fork()
    if watcher == 0:
        _watch(world, seed, report)
    processes = Processes(partial(work, world), chance, points=POINTS, latest=16, oldest=8.0)
    server.tell("chaos")
    began, restart_at = time.monotonic(), chance.uniform(3, 6)
    while (now := time.monotonic() - began) < seconds:
        processes.keep_going()
        if now > restart_at:
            endpoint.restart()
            restart_at = now + chance.uniform(3, 6)
        time.sleep(0.005)
    endpoint.restart(well_behaved=True)
    away = server.calm()
    processes.kill()  # some of them still have a death before them
    os.kill(watcher, signal.SIGUSR1)  # nobody puts anything back any more
    with Api.of(world.kubeconfig) as api:
        restless = settle(processes, lambda: _waiting(api, world))
    processes.stop()
    os.kill(watcher, signal.SIGTERM)
    os.waitpid(watcher, 0)
    endpoint.stop()
    with Api.of(world.kubeconfig) as api:
        stored = [token for secret in SECRETS for token in _tokens(api, world, secret)]
    server.end()
    told, broken = _verdict(
        home, processes, stored, {"deaths of the endpoint": endpoint.deaths, "the API server was away": away}
    )
    return told, [*restless, *broken]


def _waiting(api: Api, world: KubeWorld) -> list[str]:
    try:
        entries = [item for secret in world.secrets for item in logins_of(world.get(api, secret), secret).items()]
    except httpx.TransportError:
        return ["the API server"]
    return [name for name, entry in entries if "refresh" in entry and waits(entry)]


def _tokens(api: Api, world: KubeWorld, secret: str) -> list[str]:
    data = api.get("Secret", secret, namespace=world.namespace)["data"]
    files = {key: json.loads(base64.b64decode(text)) for key, text in data.items() if key.endswith(".json")}
    found = [entry["refresh"] for entry in files["auth-profiles.json"]["profiles"].values() if "refresh" in entry]
    login = files.get(".credentials.json", {}).get("claudeAiOauth", {})
    return [*found, *([login["refreshToken"]] if login else [])]


def _verdict(
    home: Path, processes: Processes, stored: list[str], more: dict[str, object]
) -> tuple[dict[str, object], list[str]]:
    seen = json.loads((home / "seen").read_text())
    ended = [Ended(**one) for one in seen["ended"]]
    cut_off, gave_up = read_lines(home / "cut-off"), read_lines(home / "gave-up")
    found = Evidence(read_ledger(home / "ledger"), ended, processes.deaths, stored, frozenset(DOUBTFUL), cut_off, gave_up)
    broken = [*seen["broken"], *violations(found)]
    if not processes.sound:
        broken.append("a process ended by itself")
    more = more | {"answers that came too late": len(gave_up), "cut off": len(cut_off)}
    people = {"looks at the Secrets": seen["looks"], "edits by others": sum(seen["notes"].values())}
    return summary(found, processes.counts()) | people | {"put back": seen["put_back"]} | more, broken


def _import_everything() -> None:
    """Before anybody is forked."""
    import httpx  # noqa: F401

    asyncio.run(asyncio.sleep(0))
    import_client()
    HttpTokenEndpoint()


def _watch(world: KubeWorld, seed: int, report: Path) -> NoReturn:
    code = 1
    try:
        watch(world, seed, report)
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
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
