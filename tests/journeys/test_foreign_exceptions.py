"""P1, P2: whatever comes out of a port ends there, as a fault of a source, a profile, an endpoint or a sink.

At each port exceptions of many types are thrown, which nobody foresaw: at the start, while it runs, at a refresh.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from equabot_client import Outcome
from tests.fakes.token_endpoint import TokenEndpoint
from tests.journeys.failing import PORTS
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

CANARY = "sk-ant-api03-" + "canary00" * 11 + "AA"
LAST_KEY = "sk-ant-api03-" + "lastkey0" * 11 + "AA"
OPENAI = "sk-proj-" + "steady00" * 12
CONFIG = """\
agents: {{main: {{}}, coder: {{}}}}
providers:
  anthropic: {{base_url: "http://127.0.0.1:9"}}
  acme: {{base_url: "http://127.0.0.1:9", token_url: "{url}", client_id: cli}}
"""
COUNTED = {
    "unit": "source", "endpoint": "token_endpoint", "client": "token_endpoint", "store": "profile_store",
    "judgement": "probe", "audit": "sink", "metrics": "sink", "log": "sink",
}  # fmt: skip
"""Where the incidents of a port are counted, where that is not its own name."""


class Failing(RunningBroker):
    """A broker with a key that nothing happens to, one in `.env`, and logins in two stores."""

    def __init__(self, endpoint: TokenEndpoint) -> None:
        super().__init__(
            credentials={"OPENAI_API_KEY": OPENAI, "CANARY": CANARY},
            dotenv=f"ANTHROPIC_API_KEY={KEY}\n",
            config=CONFIG.format(url=endpoint.url),
        )
        self.command = (sys.executable, "-m", "tests.journeys.failing")
        self.endpoint = endpoint
        self.logins: dict[str, object] = {}

    def log_in(self, name: str, *, agent: str = "main", life: float = -10.0) -> None:
        """Puts another login into the agent's store; one that has ended is refreshed at once."""
        self.logins[f"acme:{name}"] = {"type": "oauth", "provider": "acme"} | self.endpoint.login(name, life=life)
        store = self.home / f"agents/{agent}/agent/auth-profiles.json"
        store.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        written = store.with_suffix(".new")
        before = json.loads(store.read_text())["profiles"] if store.exists() else {}
        written.write_text(json.dumps({"version": 1, "profiles": before | {f"acme:{name}": self.logins[f"acme:{name}"]}}))
        written.chmod(0o600)
        written.replace(store)

    def throw(self, *ports: str) -> None:
        """From now on these throw."""
        written = self.home / "throw.new"
        written.write_text(" ".join(ports))
        written.rename(self.home / "throw")

    def incidents(self, port: str) -> float:
        """How many there were."""
        found = re.search(rf'equabot_incidents_total{{port="{COUNTED.get(port, port)}"}} (\S+)', self.scrape())
        assert found is not None
        return float(found[1])

    def serves(self, profile: str, secret: str = "", *, agent: str = "main") -> bool:
        """Whether the profile can be leased, with that secret."""
        with self.connect(agent) as client:
            known = next((one for one in client.list_profiles() if one.id == profile), None)
            if known is None or not known.usable:
                return False
            lease = client.acquire(profile)
            client.revoke(lease)
            return not secret or lease.secret.reveal() == secret

    def wait_healthy(self, service: str = "readiness", *, serving: bool = True, within: float = 60) -> None:
        """As ever, on a machine with much else to do."""
        super().wait_healthy(service, serving=serving, within=within)

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """As ever, on a machine with much else to do."""
        deadline = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < deadline, f"it does not happen:\n{self.log()}"
            time.sleep(0.02)

    def faults(self) -> str:
        """What the operator reads."""
        return self.run("doctor").stdout


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Failing]:
    with TokenEndpoint(tmp_path / "ledger", life=3600.0) as endpoint:
        broker = Failing(endpoint)
        yield broker
        broker.close()


def provoke(broker: Failing, port: str) -> None:
    """Makes the broker use the port."""
    turn = len(broker.logins)
    if port in ("probe", "judgement"):
        report(broker, "anthropic:dotenv", Outcome.AUTH)
        return
    broker.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY if turn % 2 else KEY}\n")
    broker.log_in(f"login{turn}")
    broker.log_in(f"own{turn}", agent="coder", life=3600.0)
    report(broker, "openai:env", Outcome.OK)
    if port == "store":
        report(broker, "acme:first", Outcome.RATE_LIMIT)


def report(broker: Failing, profile: str, outcome: Outcome) -> None:
    """An agent reports of a lease of the profile, if there is one to be had."""
    if broker.serves(profile):
        with broker.connect() as client:
            lease = client.acquire(profile)
            client.report(lease, outcome)
            client.revoke(lease)


def test_the_broker_outlives_what_every_port_throws_at_its_start(failing: Failing) -> None:
    """All of them at once; the key that needs none of them is served, and everything is well once they work."""
    failing.log_in("first")
    failing.throw(*PORTS)
    failing.start(service="liveness")
    failing.wait_for(lambda: failing.serves("openai:env", OPENAI))
    failing.throw()
    failing.wait_healthy()
    failing.wait_for(lambda: failing.serves("anthropic:dotenv", KEY))
    failing.wait_for(lambda: failing.serves("acme:first"))
    assert CANARY[13:29] not in failing.log() + failing.audit() + failing.faults()


@pytest.mark.parametrize("port", PORTS)
def test_the_broker_outlives_what_a_port_throws_while_it_runs(failing: Failing, port: str) -> None:
    """Counted, in the log by number, said to the operator by the same number; and it ends when the port works again."""
    failing.log_in("first", life=3600.0)
    failing.start()
    failing.wait_for(lambda: failing.serves("acme:first"))
    before = failing.incidents(port)
    failing.throw(port)
    failing.wait_for(lambda: _met(failing, port, before))
    assert failing.serves("openai:env", OPENAI)
    failing.throw()
    failing.wait_for(lambda: _refreshed(failing))
    failing.write_dotenv(f"ANTHROPIC_API_KEY={LAST_KEY}\n")
    failing.wait_for(lambda: failing.serves("anthropic:dotenv", LAST_KEY))
    failing.wait_for(lambda: " 1.0" not in "".join(re.findall(r"equabot_(?:state_store|audit)_fault \S+", failing.scrape())))
    assert re.search(r"incident [0-9a-f]{8}", failing.log())
    assert CANARY[13:29] not in failing.log() + failing.audit() + failing.faults()


def _met(broker: Failing, port: str, before: float) -> bool:
    """Whether the port has thrown, once the broker had every reason to use it."""
    provoke(broker, port)
    deadline = time.monotonic() + 3
    while broker.incidents(port) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    return broker.incidents(port) > before


def _refreshed(broker: Failing) -> bool:
    """Whether a login is refreshed. It is written without the store's lock, as an editor does, so the broker's own write
    may take its place: then there is another one."""
    name = f"login{len(broker.logins)}"
    broker.log_in(name)
    deadline = time.monotonic() + 5
    while not (served := broker.serves(f"acme:{name}")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return served


def test_a_fault_of_a_source_names_the_incident_and_ends_with_it(failing: Failing) -> None:
    """The number is the log's."""
    failing.start()
    failing.throw("source")
    failing.write_dotenv(f"ANTHROPIC_API_KEY={OTHER_KEY}\n")
    said: Callable[[], str] = failing.faults
    failing.wait_for(lambda: "incident" in said())
    number = re.search(r"incident ([0-9a-f]{8})", said())
    assert number is not None
    assert f"incident {number[1]}: an unexpected fault of source dotenv" in failing.log()
    failing.throw()
    failing.wait_for(lambda: "incident" not in said())
