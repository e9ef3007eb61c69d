"""The people beside the processes of the refresh proof on Kubernetes: one watches the Secrets and logs in again where a login
has ended; one labels them and adds keys; one applies older manifests.

They never die, and nothing they see may be broken at any moment.
"""

import base64
import json
import random
import signal
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from equabot_broker.formats.refresh_marks import digest
from equabot_broker.formats.secret_logins import SecretLogins
from equabot_broker.parsing.untrusted_json import Malformed
from tests.kubernetes.api import Api, Json, Refused
from tests.proof.kube_worker import KubeWorld
from tests.proof.person import FOREIGN, Ended, asked

STORE, CLAUDE = "auth-profiles.json", ".credentials.json"
PENDING = "equabot.dev/pending-refresh"


@dataclass(slots=True)
class KubeSight:
    """What they saw and did. `notes` is how often each Secret was labelled, `put_back` how often an older manifest was
    applied."""

    looks: int = 0
    away: int = 0
    put_back: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


class KubePerson:
    """All of them. They work with the API as `kubectl` does."""

    def __init__(self, world: KubeWorld, api: Api, seed: int) -> None:
        self.sight = KubeSight()
        self._world = world
        self._api = api
        self._chance = random.Random(seed)
        self._older: defaultdict[str, deque[dict[str, str]]] = defaultdict(lambda: deque(maxlen=3))
        self._resting = False

    def prepare(self) -> None:
        """Two logins and another program's entry in each Secret, and in every third Claude's login as well."""
        for number, secret in enumerate(self._world.secrets):
            names = [f"acme:{secret}-{each}" for each in "ab"]
            entries = {name: {"type": "oauth", "provider": "acme"} | asked(self._world.url, {"login": name}) for name in names}
            data = {STORE: json.dumps({"version": 1, "profiles": {"holo:gram": FOREIGN, **entries}})}
            annotations = {}
            if number % 3 == 0:
                data[CLAUDE] = self._claude(secret)
                annotations = {"equabot.dev/mode": "oauth"}
            self._api.secret(self._world.namespace, secret, data, annotations=annotations)

    def calm(self) -> None:
        """From now on they only log in again, and label and apply nothing."""
        self._resting = True

    def round(self) -> bool:
        """One look at every Secret, and what follows from it: whether all of it was done. An API server that is away is waited
        for."""
        done = True
        for secret in self._world.secrets:
            try:
                self._mind(secret)
            except httpx.TransportError:
                done = False
                self.sight.away += 1
                time.sleep(0.1)
            except Refused as refused:
                done = False
                if refused.status not in (409, 429, 500, 503, 504):
                    self.sight.broken.append(f"{secret}: {refused}")
        return done

    def rest(self) -> None:
        """What is true at the end: what was written beside the logins is there. Who put an older manifest back last finds out
        what became of it."""
        self.calm()
        while not self.round():
            continue
        for secret, number in self.sight.notes.items():
            thing = self._api.call("GET", self._world.path(secret), timeout=30)
            label, value = thing["metadata"]["labels"]["note"], base64.b64decode(thing["data"]["NOTE"]).decode()
            if label != value or int(label) < number:
                self.sight.broken.append(f"{secret}: somebody's edit {number} is lost, there is {label} and {value}")

    def _mind(self, secret: str) -> None:
        thing = self._world.get(self._api, secret)
        self.sight.looks += 1
        try:
            entries = logins_of(thing, secret)
        except Malformed as malformed:
            self.sight.broken.append(f"{secret} cannot be read: {malformed}")
            return
        claude = {f"anthropic:{secret}"} if CLAUDE in thing["data"] else set()
        wanted = {"holo:gram", f"acme:{secret}-a", f"acme:{secret}-b"} | claude
        if entries.keys() != wanted or entries["holo:gram"] != FOREIGN:
            self.sight.broken.append(f"{secret} holds {sorted(entries)}")
        ended = [name for name, entry in entries.items() if self._has_ended(entry)]
        if ended:
            now = time.time()
            for name in ended:
                code = entries[name]["reauthRequired"]["code"]
                self.sight.ended.append(Ended(secret, name, code, now, digest(entries[name])))
            self._log_in(thing, ended)
            return
        if thing["data"][STORE] not in [older[STORE] for older in self._older[secret]]:
            self._older[secret].append({STORE: thing["data"][STORE]})
        if self._resting:
            return
        drawn = self._chance.random()
        if drawn < 0.05:
            self._note(secret)
        elif drawn < 0.07 and PENDING not in thing["metadata"].get("annotations", {}):
            self._put_back(thing)

    def _has_ended(self, entry: Json) -> bool:
        mark = entry.get("reauthRequired")
        return mark is not None and bool(mark["digest"] == digest(entry))

    def _log_in(self, thing: Json, names: Iterable[str]) -> None:
        """With the Secret as it was looked at: who was faster is looked at anew."""
        secret, data = thing["metadata"]["name"], dict(thing["data"])
        store = json.loads(base64.b64decode(data[STORE]))
        for name in names:
            if name.startswith("anthropic:"):
                data[CLAUDE] = base64.b64encode(self._claude(secret).encode()).decode()
            else:
                store["profiles"][name] = {"type": "oauth", "provider": "acme"} | asked(self._world.url, {"login": name})
        data[STORE] = base64.b64encode(json.dumps(store).encode()).decode()
        self._api.replace({**thing, "data": data})

    def _note(self, secret: str) -> None:
        """Whatever becomes of it: the same number is written again next time, unless its answer was seen."""
        number = str(self.sight.notes.get(secret, 0) + 1)
        change = {"metadata": {"labels": {"note": number}}, "stringData": {"NOTE": number}}
        self._api.patch("Secret", secret, change, namespace=self._world.namespace)
        self.sight.notes[secret] = int(number)

    def _put_back(self, thing: Json) -> None:
        older = self._chance.choice(list(self._older[thing["metadata"]["name"]]))
        self._api.replace({**thing, "data": thing["data"] | older})
        self.sight.put_back += 1

    def _claude(self, secret: str) -> str:
        tokens = asked(self._world.url, {"login": f"anthropic:{secret}"})
        login = {"accessToken": tokens["access"], "refreshToken": tokens["refresh"], "expiresAt": tokens["expires"]}
        return json.dumps({"claudeAiOauth": login, "mcpServers": {}})


def logins_of(thing: Json, secret: str) -> Mapping[str, Any]:
    """The entries in a Secret, with what is noted of them. Raises Malformed."""
    claude = f"anthropic:{secret}" if CLAUDE in thing["data"] else ""
    data = {key: base64.b64decode(text) for key, text in thing["data"].items()}
    return SecretLogins(data, thing["metadata"].get("annotations", {}), claude).document().entries


def watch(world: KubeWorld, seed: int, report: Path) -> None:
    """Looks until SIGTERM, from SIGUSR1 on without putting anything back, and then writes down what was seen."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    with Api.of(world.kubeconfig) as api:
        person = KubePerson(world, api, seed)
        signal.signal(signal.SIGUSR1, lambda *_: person.calm())
        while not stopping:
            person.round()
            time.sleep(0.02)
        person.rest()
    report.write_text(json.dumps(asdict(person.sight)))
