"""The example agent as a process: it works with what a real broker leases it, says how that goes, and never with what."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from tests.fakes.upstream import Upstream, refused
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker
from tests.ports import free_port

PROGRAM = Path(__file__).parents[2] / "deploy" / "example-agent" / "agent.py"


class Agent:
    """It, running beside a broker of its own and a provider."""

    def __init__(self, broker: RunningBroker, provider: Upstream) -> None:
        self.broker = broker
        self.provider = provider
        port = free_port()
        self._url = f"http://127.0.0.1:{port}/"
        self._log = broker.home / "agent.log"
        environ = broker.environ | {"AGENT_LISTEN": f"127.0.0.1:{port}", "AGENT_PERIOD": "0.02", "PYTHONWARNINGS": "error"}
        environ |= {"EQUABOT_BROKER_ADDRESS": f"unix:{broker.socket()}"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, str(PROGRAM)], env=environ, stdout=log, stderr=log)

    def page(self) -> tuple[int, dict[str, Any]]:
        """Its status and what it shows; 0 while there is none."""
        with suppress(OSError):
            try:
                answer = urllib.request.urlopen(self._url, timeout=5)
            except HTTPError as error:
                answer = error
            with answer:
                return answer.status, json.loads(answer.read())
        return 0, {}

    def shows(self, **wanted: Any) -> None:
        """Returns once the page has all of that."""
        self.broker.wait_for(lambda: self.process.poll() is not None or wanted.items() <= self.page()[1].items())
        assert self.process.poll() is None, self.log

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Upstream() as provider:
        config = {"providers": {"anthropic": {"base_url": provider.url}}, "sources": ["dotenv"]}
        broker = RunningBroker(credentials={}, dotenv="", config=yaml.safe_dump(config))
        try:
            running = Agent(broker.start(), provider)
            yield running
            running.process.kill()
            running.process.wait(60)
        finally:
            broker.close()


def test_it_works_with_what_it_is_leased(agent: Agent) -> None:
    """503 with the reason while there is nothing; 200 with profile and last status from then on; a rotated key is in the next
    request; the page and the log hold neither. SIGTERM ends it well."""
    agent.shows(working=False)
    agent.broker.wait_for(lambda: "NO_USABLE_PROFILE" in agent.page()[1].get("error", ""))
    assert agent.page()[0] == 503

    agent.broker.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
    agent.shows(working=True, profile="anthropic:dotenv", delivery="raw", status=200, error="")
    assert agent.page()[0] == 200
    assert agent.provider.received[-1].secret() == KEY
    assert agent.provider.received[-1].headers["anthropic-version"]

    agent.broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
    agent.broker.wait_for(lambda: agent.provider.received[-1].secret() == OTHER_KEY)

    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(60) == 0, agent.log
    for key in (KEY, OTHER_KEY):
        assert key not in agent.log


def test_it_lives_through_its_providers_troubles(agent: Agent) -> None:
    """A refusal is told to the broker and shown; a provider that is not there is the provider's fault, not the lease's."""
    agent.broker.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
    agent.shows(working=True, status=200)
    agent.provider.verdicts[KEY] = refused(401)
    agent.broker.wait_for(lambda: "NO_USABLE_PROFILE" in agent.page()[1].get("error", ""))
    agent.provider.verdicts.clear()
    agent.broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
    agent.shows(working=True, status=200)


def test_it_lives_through_its_brokers_end(agent: Agent) -> None:
    """A broker that is killed and comes again is found again."""
    agent.broker.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
    agent.shows(working=True, status=200)
    agent.broker.kill()
    agent.broker.start()
    calls = agent.page()[1]["calls"]
    agent.broker.wait_for(lambda: agent.page()[1]["calls"] > calls + 3)
    agent.shows(working=True, status=200)


def test_a_signal_during_its_imports_ends_it(tmp_path: Path) -> None:
    """K9: as the first process of a container it would ignore a SIGTERM that comes before it has a handler."""
    (tmp_path / "httpx.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    environ = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen([sys.executable, str(PROGRAM)], env=environ, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"importing\n"
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(60) == 0
