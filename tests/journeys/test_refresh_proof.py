"""The refresh proof: no refresh token is redeemed twice, and no login is lost that the endpoint did not end.

Eight processes share one store and a token endpoint of another process, whose refresh tokens are single-use, live for a second
and end the whole login when one is shown again. The endpoint fails in nineteen ways (5xx, 429, HTML, nothing, resets before and
after redeeming, broken and truncated answers, too late, refusals, another account, odd lives …) and is itself killed and
restarted. The processes die by `kill -9`, at random instants and at every one of these fault points:

    before lock · locked
    intent: before the temporary file · in the middle of writing it · before its rename · after its rename · written
    before connect · while asking · answered
    outcome: before the temporary file · in the middle of writing it · before its rename · after its rename · written
    before unlock · unlocked

The laws are in `tests/proof/verdict.py`. `EQUABOT_PROOF_SECONDS` makes it longer, `EQUABOT_PROOF_SEED` repeats its choices.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import with_entry
from equabot_broker.storage.agent_stores import AgentStores
from equabot_client import errors
from tests.fakes.token_endpoint import Entry, TokenEndpoint
from tests.journeys.running import RunningBroker
from tests.proof.worker import POINTS

SECONDS = float(os.environ.get("EQUABOT_PROOF_SECONDS", "30"))
SEED = int(os.environ.get("EQUABOT_PROOF_SEED", str(time.time_ns() % 10**6)))
BROKERS = 8


@pytest.mark.timeout(SECONDS + 480)  # a busy machine needs longer to come to every death, and to rest
def test_eight_processes_and_every_death(record_property: Callable[[str, object], None]) -> None:
    """The store stays readable throughout, and nothing that other programs keep in it is lost."""
    program = [sys.executable, "-m", "tests.proof.run", str(SECONDS), str(SEED)]
    run = subprocess.run(program, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr + run.stdout
    told = json.loads(run.stdout)
    record_property("refresh proof", told)
    print(f"seed {SEED}: {run.stdout}")
    assert set(POINTS) <= told["deaths"].keys()
    assert told["deaths"]["at random"] > 0
    assert min(told["ended as"][kind] for kind in ("refreshed", "adopted", "failed", "ended")) > 0


class Sharing(RunningBroker):
    """A broker with a run directory of its own, in a home that others share."""

    def __init__(self, home: Path) -> None:
        super().__init__(credentials={}, dotenv="", config="")
        self.environ |= {"EQUABOT_HOME": str(home)}

    def launch(self) -> None:
        """Starts it, and does not wait."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environ, stdout=log, stderr=log)

    def token(self) -> str:
        """The access token that an agent gets."""
        return self.run("key", "acme").stdout.strip()


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[TokenEndpoint]:
    with TokenEndpoint(tmp_path / "ledger", life=6.0, slowness=30.0) as serving:
        yield serving


@pytest.fixture
def home(tmp_path: Path, endpoint: TokenEndpoint) -> Path:
    """With one login, which has expired."""
    provider = f'{{token_url: "{endpoint.url}", client_id: cli, base_url: "https://api.acme.example"}}'
    (tmp_path / "equabot.yaml").write_text(f"sources: [profile_store: {{}}]\nproviders:\n  acme: {provider}\n")
    log_in(tmp_path, endpoint.login("me", life=-1.0))
    return tmp_path


@pytest.fixture
def brokers(home: Path) -> Iterator[list[Sharing]]:
    with ExitStack() as stack:
        made = [Sharing(home) for _ in range(BROKERS)]
        for broker in made:
            stack.callback(broker.close)
        yield made


def log_in(home: Path, tokens: dict[str, Any]) -> None:
    """What a person does, by the commands' own means."""
    entry = {"type": "oauth", "provider": "acme", **tokens}
    AgentStores(home, clock=SystemClock()).of("main").edit(lambda document: with_entry(document, "acme:me", entry))


def store_of(home: Path) -> str:
    return (home / "agents" / "main" / "agent" / "auth-profiles.json").read_text()


def presented(endpoint: TokenEndpoint) -> list[Entry]:
    return [entry for entry in endpoint.ledger() if entry.event == "presented"]


def eventually(what: Callable[[], bool], *, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.timeout(180)
def test_eight_brokers_share_one_login(home: Path, endpoint: TokenEndpoint, brokers: list[Sharing]) -> None:
    """Started at once on a login that has expired, one of them refreshes it, and then whoever is first; all hand out what came.
    When all are killed while the endpoint is being asked, the token is not sent again: a person is told what to do, and once
    that is done all serve."""
    for broker in brokers:
        broker.launch()
    for broker in brokers:
        broker.wait_healthy("provider/acme")
    stopping, seen = threading.Event(), [list[str]() for _ in brokers]
    following = [
        threading.Thread(target=_follow, args=(broker, stopping, into)) for broker, into in zip(brokers, seen, strict=True)
    ]
    for thread in following:
        thread.start()
    began, before = time.monotonic(), len(presented(endpoint))
    eventually(lambda: len(presented(endpoint)) >= before + 2)
    elapsed = time.monotonic() - began
    eventually(lambda: "pendingRefresh" not in store_of(home))  # the next refresh is seconds away
    brokers[0].kill()
    brokers[1].kill()
    for broker in brokers[:2]:
        broker.start(service="provider/acme")
    eventually(lambda: all(len(set(tokens)) >= 3 for tokens in seen[2:]))
    stopping.set()
    for thread in following:
        thread.join()
    shown = [entry.token for entry in presented(endpoint)]
    assert len(shown) == len(set(shown)), "a refresh token was presented twice"
    assert {entry.verdict for entry in presented(endpoint)} == {"redeemed"}
    assert elapsed > 3.0, "they refreshed oftener than one would"

    endpoint.faults = ["slow"]
    before = len(presented(endpoint))
    eventually(lambda: len(presented(endpoint)) > before)
    for broker in brokers:
        broker.kill()
    spent = presented(endpoint)[-1].token
    for broker in brokers:
        broker.launch()
    for broker in brokers:
        broker.wait_healthy("provider/acme", serving=False)
        broker.wait_output("models", "status", "--plain", until=lambda printed: "reauth_required" in printed)
    with (
        brokers[3].connect() as client,
        pytest.raises(errors.ReauthRequired, match="equabot models auth login --provider acme"),
    ):
        client.acquire("acme")
    assert presented(endpoint)[-1].token == spent
    assert [entry.token for entry in presented(endpoint)].count(spent) == 1

    tokens = endpoint.login("me", life=60.0)
    log_in(home, tokens)
    for broker in brokers:
        broker.wait_healthy("provider/acme")
        assert broker.token() == tokens["access"]


def test_a_broker_that_is_told_to_stop_finishes_its_refresh(home: Path, endpoint: TokenEndpoint) -> None:
    """Cut off in the middle, it would cost the login."""
    endpoint.slowness, endpoint.faults = 1.5, ["slow"]
    broker = Sharing(home)
    try:
        broker.start(service="liveness")
        eventually(lambda: len(presented(endpoint)) == 1)
        assert broker.stop() == 0
        entry = json.loads(store_of(home))["profiles"]["acme:me"]
    finally:
        broker.close()
    assert endpoint.accepts(entry["access"])
    assert not entry.keys() & {"pendingRefresh", "reauthRequired"}
    assert [seen.event for seen in endpoint.ledger()] == ["login", "presented", "answered"]


def _follow(broker: Sharing, stopping: threading.Event, into: list[str]) -> None:
    """Writes down the access tokens that an agent works with."""
    try:
        with broker.connect() as client, client.credential("acme") as credential:
            while not stopping.wait(0.02):
                into.append(credential.secret().reveal())
    except errors.EquabotError:
        return  # this broker was killed
