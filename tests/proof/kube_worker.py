"""One of the processes that share Secrets in the refresh proof on Kubernetes: the real engine step, the real Lease and Secret
on a real API server, real HTTP. Only the dying is the test's, and each process's clock, which is wrong in its own way."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Provider
from equabot_broker.engine.refresh.redemption import Redemption, RedemptionKind
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.kube.api import ApiObject, KubeApi, KubeFault
from equabot_broker.oauth.refreshing import refresh_at
from equabot_broker.ports import LockedStore, StoreFault
from equabot_broker.sources._secret import read_secret
from equabot_broker.storage.secret_store import SecretOptions, SecretStores
from tests.kubernetes.api import Api
from tests.proof.worker import Doom, Endpoint, Notes, Phased

SURVIVED: Final = (
    "before lock", "lock on its way", "locked", "intent: before request", "outcome: written", "before unlock", "unlocked",
)  # fmt: skip
"""Fault points at which no refresh token is in danger: it is not sent yet, or what came for it is stored."""
UNKNOWN: Final = ("intent: on its way", "outcome: on its way")
"""Fault points of which nobody can say whether the server has done it."""
DOUBTFUL: Final = ("intent: written", "while asking", "answered", "outcome: before request")
"""Fault points between the intent and what came of it: the token may be spent, and nobody has what came for it."""
POINTS: Final = SURVIVED + UNKNOWN + DOUBTFUL

LIFE: Final = 5.0
"""Seconds that an access token lives."""
SKEWS: Final = (0.0, 0.0, 1.0, -1.0, 2.0, -2.0, 0.3, -3600.0)
"""By how many seconds each process's wall clock is wrong."""
WITHIN: Final = 1.5
"""Seconds in which the endpoint has to answer."""
OPTIONS: Final = SecretOptions(locked_for=6, lock_within=0.1, patience=2.0, call_within=1.5)


@dataclass(frozen=True, slots=True)
class KubeWorld:
    """What all processes share: the API server, a namespace in it, and its Secrets."""

    kubeconfig: Path
    namespace: str
    url: str
    secrets: tuple[str, ...]

    @property
    def rules(self) -> DiscoveryRules:
        vendor = partial(Provider, token_url=self.url, token_encoding="form", client_id="cli")
        return DiscoveryRules(Catalog({name: vendor(id=name) for name in ("acme", "anthropic")}))

    @property
    def cut_off(self) -> Path:
        """Here the processes write down whose login they had in hand when they could not tell what is written of it."""
        return self.kubeconfig.with_name("cut-off")

    @property
    def gave_up(self) -> Path:
        """Here they write down which of their requests to the endpoint got no answer in time."""
        return self.kubeconfig.with_name("gave-up")

    def path(self, secret: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets/{secret}"

    def get(self, api: Api, secret: str) -> ApiObject:
        """The Secret, as a person reads it."""
        return api.call("GET", self.path(secret), timeout=2)


class SkewedClock(SystemClock):
    """It goes as it should, and shows something else."""

    def __init__(self, skew: float) -> None:
        self._skew = skew

    def now(self) -> float:
        return super().now() + self._skew


class DoomedApi(KubeApi):
    """The real one, with fault points before and in the middle of every write."""

    def __init__(self, world: KubeWorld, doom: Doom, chance: random.Random) -> None:
        super().__init__(kubeconfig=world.kubeconfig)
        self._doom = doom
        self._chance = chance

    async def create(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        self._doom.at("before lock")
        async with self._dying("lock on its way"):
            return await super().create(path, body, timeout=timeout)

    async def replace(self, path: str, body: ApiObject, *, timeout: float = 10.0) -> ApiObject:
        if "/secrets/" in path:
            before, within = f"{self._doom.phase}: before request", f"{self._doom.phase}: on its way"
        elif "holderIdentity" in body["spec"]:
            before, within = "before lock", "lock on its way"
        else:
            before, within = "before unlock", ""
        self._doom.at(before)
        async with self._dying(within):
            return await super().replace(path, body, timeout=timeout)

    @asynccontextmanager
    async def _dying(self, point: str) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        doomed = self._doom.comes(point)
        end = loop.call_later(self._chance.uniform(0.0, 0.02), self._doom.die, point) if doomed else None
        try:
            yield
        finally:
            if end is not None:
                end.cancel()  # it was quick: next time, then


class Stores(SecretStores):
    """The real stores, with fault points between the steps."""

    def __init__(self, world: KubeWorld, doom: Doom, notes: Notes, chance: random.Random, *, slot: int, seed: int) -> None:
        clock = SkewedClock(SKEWS[slot])
        api = DoomedApi(world, doom, chance)
        super().__init__(api, namespace=world.namespace, clock=clock, holder=f"{slot}-{seed}", options=OPTIONS)
        self._doom = doom
        self._notes = notes
        self._cut_off = world.cut_off

    @asynccontextmanager
    async def locked(self, login: Profile) -> AsyncIterator[LockedStore]:
        async with super().locked(login) as store:
            held = _Noted(store, self._doom, self._notes, login.id)
            held.note(store.document)
            self._doom.at("locked")
            try:
                yield held
            except StoreFault:
                self._note_cut_off(store)
                raise
        self._doom.at("unlocked")

    def _note_cut_off(self, store: Any) -> None:
        """Only who does not know what is written may be taken for dead. Who was refused has left no intent, or took it back."""
        if store.unsure:
            with self._cut_off.open("a") as file:
                file.write(f"{self._notes.in_hand}\n")


class _Noted(Phased):
    """Tells whose login is in hand: another one, once what was left over from an earlier attempt is written."""

    def __init__(self, store: LockedStore, doom: Doom, notes: Notes, login: str) -> None:
        super().__init__(store, doom)
        self._notes = notes
        self._login = login

    def note(self, document: AuthDocument) -> None:
        self._notes.hold(digest(document.entries.get(self._login, {})))

    async def replace(self, document: AuthDocument) -> None:
        self.note(document)
        await super().replace(document)


async def work(world: KubeWorld, *, slot: int, notes: Notes, doom: Doom, seed: int) -> None:
    """Refreshes whatever is due, until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    chance = random.Random(seed)
    clock, reading = SkewedClock(SKEWS[slot]), KubeApi(kubeconfig=world.kubeconfig)
    stores = Stores(world, doom, notes, chance, slot=slot, seed=seed)
    endpoint = Endpoint(doom, chance, gave_up=world.gave_up, within=WITHIN)
    redemption = Redemption(clock=clock, stores=stores, endpoint=endpoint, rules=world.rules)
    while not stopping.is_set():
        for secret in chance.sample(world.secrets, len(world.secrets)):
            for profile in await _read(reading, world, secret):
                if stopping.is_set() or not _is_due(profile, clock.now(), chance.random()):
                    continue
                try:
                    outcome = await redemption.redeem(profile)
                except StoreFault:
                    notes.count(len(RedemptionKind))
                else:
                    notes.count(list(RedemptionKind).index(outcome.kind))
            await clock.sleep(chance.uniform(0.0, 0.06))
    await stores.close()
    await reading.close()


async def _read(api: KubeApi, world: KubeWorld, secret: str) -> tuple[Profile, ...]:
    """As the source would; in an order of its own."""
    try:
        thing: Mapping[str, Any] = await api.get(world.path(secret), timeout=1.0)
    except KubeFault:
        return ()
    unit = read_secret(thing, rules=world.rules, source="kubernetes")
    if isinstance(unit, str):
        raise TypeError(unit)
    return unit.profiles


def _is_due(profile: Profile, now: float, chance: float) -> bool:
    if profile.refresh is None or profile.reauth or profile.expires_at is None:
        return False
    return now >= refresh_at(issued_at=profile.issued_at, expires_at=profile.expires_at, chance=chance)
