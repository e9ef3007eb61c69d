"""Envoy beside the broker, as in a pod: it waits for a broker that comes back, and lets nothing pass without one."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Self

import psutil
import pytest

from tests.fakes.upstream import Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import Gateway
from tests.journeys.running import KEY

AGENTS = 16
WAIT = "import os, sys; print(os.environ['ANTHROPIC_API_KEY'], flush=True); sys.stdin.read()"


class Load:
    """Agents that ask again and again, each with a token of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stopping = threading.Event()
        self.seen: Counter[tuple[int, str]] = Counter()
        self._agents = [threading.Thread(target=self._ask, args=(gateway.lease().secret.reveal(),)) for _ in range(AGENTS)]

    def __enter__(self) -> Self:
        for agent in self._agents:
            agent.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        for agent in self._agents:
            agent.join()

    def goes_on(self) -> None:
        """Returns once everybody has been answered a few times more."""
        before = self.seen.total()
        self._gateway.wait_for(lambda: self.seen.total() > before + 4 * AGENTS)

    def _ask(self, token: str) -> None:
        while not self._stopping.is_set():
            told = self._gateway.ask(token, "/anthropic/v1/models", method="GET")
            self.seen[told.status, told.reason] += 1


@pytest.fixture
def beside(make_gateway: MakeGateway) -> Iterator[Gateway]:
    """A broker, and an Envoy that outlives it."""
    gateway = make_gateway(mode="sidecar").start()
    with gateway.envoy():
        yield gateway


def test_no_request_fails_while_the_broker_is_killed_and_comes_back(beside: Gateway, vendor: Upstream) -> None:
    """`kill -9` in the middle of everything, three times. The tokens stay good: they are in the state before they are told."""
    vendor.accepted = {KEY}
    with Load(beside) as load:
        for _ in range(3):
            load.goes_on()
            beside.kill()
            beside.start()
        load.goes_on()
    assert load.seen.keys() == {(200, "")}


def test_nothing_passes_while_the_broker_stays_away(beside: Gateway, vendor: Upstream) -> None:
    """503, in words; and as soon as it is back, with the same token, everything does."""
    token = beside.lease().secret.reveal()
    beside.kill()
    told = beside.ask(token)
    assert (told.status, told.reason) == (503, "BROKER_UNAVAILABLE")
    assert told.json()["error"]["type"] == "overloaded_error"
    assert vendor.received == []
    beside.start()
    assert beside.ask(token).status == 200


def test_a_command_keeps_its_token_when_the_broker_restarts(beside: Gateway, vendor: Upstream) -> None:
    """`equabot exec`: what it was started with is good as long as it lives, through death and drain, and no longer."""
    command = ("exec", "anthropic", "--delivery", "brokered", "--", sys.executable, "-c", WAIT)
    with subprocess.Popen(
        [sys.executable, "-m", "equabot_broker", *command],
        env=beside.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        token = running.stdout.readline().strip()
        assert beside.ask(token).status == 200
        for end in (beside.kill, beside.stop):
            end()
            beside.start()
            assert beside.ask(token).status == 200
            beside.wait_output("lease", "list", until=lambda text: "streaming" in text)
            assert beside.ask(token).status == 200
        told, words = running.communicate(timeout=60)
        assert (running.returncode, told, words) == (0, "", "")
    assert beside.ask(token).status == 401


def test_a_command_whose_token_could_not_be_kept_is_told(make_gateway: MakeGateway) -> None:
    """The broker was away for too long: the token is over, and the command would not know why."""
    gateway = make_gateway(mode="sidecar", leases={"default_ttl": "1s", "max_ttl": "1h"}).start()
    command = ("exec", "anthropic", "--delivery", "brokered", "--", sys.executable, "-c", WAIT)
    with subprocess.Popen(
        [sys.executable, "-m", "equabot_broker", *command],
        env=gateway.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline()
        gateway.kill()
        over = time.monotonic() + 1.5
        gateway.wait_for(lambda: time.monotonic() > over)
        gateway.start()
        assert running.stderr.readline() == (
            "equabot: the lease of anthropic has ended: the broker was away for longer than the lifetime of the lease"
            " (see leases.default_ttl); its token is refused: start the command again\n"
        )
        running.communicate(timeout=60)


def test_a_lease_that_reaches_its_longest_life_is_followed_by_another(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """A command may run for longer than `max_ttl`: its token goes on, each time by a new decision."""
    gateway = make_gateway(leases={"default_ttl": "1s", "max_ttl": "2s"}).start()
    command = ("exec", "anthropic", "--delivery", "brokered", "--", sys.executable, "-c", WAIT)
    with subprocess.Popen(
        [sys.executable, "-m", "equabot_broker", *command],
        env=gateway.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        token = running.stdout.readline().strip()
        statuses: Counter[int] = Counter()

        def succeeded_twice() -> bool:
            statuses[gateway.ask(token).status] += 1
            return [event["reason"] for event in gateway.events("revoked")].count("succeeded") >= 2

        gateway.wait_for(succeeded_twice)
        running.communicate(timeout=60)
    assert statuses.keys() == {200}
    assert gateway.ask(token).status == 401


def test_an_envoy_that_is_killed_is_started_again(make_gateway: MakeGateway, vendor: Upstream) -> None:
    """As the broker's child; agents see a connection refused in between."""
    gateway = make_gateway().start()
    token = gateway.lease().secret.reveal()
    [envoy] = [child for child in psutil.Process(gateway.pid).children() if child.name() == "envoy"]
    envoy.kill()

    def serves() -> bool:
        try:
            return gateway.ask(token).status == 200
        except OSError:
            return False

    gateway.wait_for(serves)
    assert "the gateway has ended (-9)" in gateway.log()
