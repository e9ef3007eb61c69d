"""The people beside the processes of the refresh proof: one watches the stores, one logs in again where a login has ended.

They never die, and nothing they see may be broken at any moment.
"""

import json
import signal
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import with_entry
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.ports import StoreFault
from equabot_broker.storage.agent_stores import AgentStores
from tests.proof.worker import World

FOREIGN = {"type": "hologram", "of": ["another", "program"]}
"""An entry that no program here knows."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A login that was found ended: whose, why, when it was marked, and the digest of its refresh token."""

    agent: str
    profile: str
    code: str
    at: float
    digest: str


@dataclass(slots=True)
class Sight:
    """What they saw."""

    looks: int = 0
    broken: list[str] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


class Person:
    """Looks at every store as a stranger would, without any lock, and acts as a person does: with the commands' own means."""

    def __init__(self, world: World, accounts: dict[str, tuple[str, ...]]) -> None:
        self.sight = Sight()
        self._world = world
        self._accounts = accounts
        self._stores = AgentStores(world.home, clock=SystemClock())

    def prepare(self) -> None:
        """Everybody logs in for the first time, beside an entry of another program."""
        for agent, accounts in self._accounts.items():
            store = self._stores.of(agent)
            store.edit(lambda document: with_entry(document, "holo:gram", FOREIGN))
            for account in accounts:
                self._log_in(agent, f"acme:{account}")

    def look(self) -> None:
        """Once at every store."""
        for agent, accounts in self._accounts.items():
            path = self._stores.of(agent).path
            self.sight.looks += 1
            try:
                raw = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                self.sight.broken.append(f"{path}: {type(error).__name__}")
                continue
            profiles = raw["profiles"]
            if profiles.keys() != {"holo:gram", *(f"acme:{account}" for account in accounts)}:
                self.sight.broken.append(f"{path} holds {sorted(profiles)}")
            if profiles.get("holo:gram") != FOREIGN:
                self.sight.broken.append(f"{path} lost what another program keeps there")
            for name, entry in profiles.items():
                self._mind(agent, name, entry)

    def _mind(self, agent: str, name: str, entry: dict[str, Any]) -> None:
        mark = entry.get("reauthRequired")
        if mark is not None and mark["digest"] == digest(entry):
            self.sight.ended.append(Ended(agent, name, mark["code"], mark["at"] / 1000, mark["digest"]))
            self._log_in(agent, name)

    def _log_in(self, agent: str, name: str) -> None:
        tokens = {"type": "oauth", "provider": "acme"} | asked(self._world.url, {"login": name})
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self._stores.of(agent).edit(lambda document: with_entry(document, name, tokens))
            except StoreFault:
                time.sleep(0.05)
            else:
                return
        self.sight.broken.append(f"nobody can log in: the store of {agent} stays locked")


def asked(endpoint: str, what: dict[str, Any]) -> dict[str, Any]:
    """What the token endpoint at that address does and answers, off the record; also while it is being restarted."""
    body = json.dumps(what).encode()
    request = urllib.request.Request(endpoint.replace("/token", "/control"), body, method="POST")
    for _ in range(400):
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                found = json.load(response)
                assert isinstance(found, dict)
                return found
        except (OSError, urllib.error.URLError, ValueError):
            time.sleep(0.02)  # the endpoint is being restarted
    raise AssertionError("the token endpoint does not come back")


def watch(world: World, accounts: dict[str, tuple[str, ...]], report: Path) -> None:
    """Looks until SIGTERM, and then writes down what was seen."""
    person = Person(world, accounts)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    while not stopping:
        person.look()
        time.sleep(0.005)
    person.look()
    report.write_text(json.dumps(asdict(person.sight)))
