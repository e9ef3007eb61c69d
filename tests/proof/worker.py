"""One of the processes that share a store in the refresh proof: it refreshes what is due, and dies where it is told to.

It is the real engine step on the real store and over real HTTP; only the dying is the test's. Most deaths come from an audit
hook, which Python calls right before an operation of the system: nothing in the code under test knows of it.
"""

import asyncio
import mmap
import os
import random
import resource
import secrets
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.provider import Catalog, Provider
from equabot_broker.engine.refresh.redemption import Redemption, RedemptionKind
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_entries import store_unit
from equabot_broker.formats.refresh_marks import digest
from equabot_broker.oauth.refreshing import Blame, RefreshFailure, TokenAnswer, TokenRequest, refresh_at
from equabot_broker.ports import LockedStore, StoreFault
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.storage.login_places import LoginPlaces
from equabot_broker.upstream.token_endpoint import HttpTokenEndpoint

SURVIVED: Final = (
    "before lock", "locked", "intent: before temp file", "intent: middle of temp file", "intent: before rename",
    "outcome: after rename", "outcome: written", "before unlock", "unlocked",
)  # fmt: skip
"""Fault points at which no refresh token is in danger: it is not sent yet, or what came for it is stored."""
DOUBTFUL: Final = (
    "intent: after rename", "intent: written", "before connect", "while asking", "answered",
    "outcome: before temp file", "outcome: middle of temp file", "outcome: before rename",
)  # fmt: skip
"""Fault points between the intent and what came of it: the token may be spent, and nobody has what came for it."""
POINTS: Final = SURVIVED + DOUBTFUL
WITHIN: Final = 0.4
"""Seconds in which the endpoint has to answer."""

_SLOT: Final = struct.Struct(f"<16sQ{len(RedemptionKind) + 1}Q")
_KINDS: Final = tuple(RedemptionKind)


class Notes:
    """What a process leaves in memory that outlives it: whose login it has in hand, its edits, and how many rounds ended how
    (the last count is of store faults). One slot a process."""

    size: Final = _SLOT.size

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._memory = memory
        self._at = slot * _SLOT.size

    @property
    def in_hand(self) -> str:
        return bytes(self._read()[0]).decode().strip("\0")

    @property
    def edits(self) -> int:
        return int(self._read()[1])

    @property
    def counts(self) -> list[int]:
        return [int(count) for count in self._read()[2:]]

    def hold(self, of: str) -> None:
        self._write(of, self.edits, self.counts)

    def edited(self) -> None:
        self._write(self.in_hand, self.edits + 1, self.counts)

    def count(self, index: int) -> None:
        counts = self.counts
        counts[index] += 1
        self._write("", self.edits, counts)

    def _read(self) -> tuple[Any, ...]:
        return _SLOT.unpack_from(self._memory, self._at)

    def _write(self, in_hand: str, edits: int, counts: list[int]) -> None:
        _SLOT.pack_into(self._memory, self._at, in_hand.encode(), edits, *counts)


@dataclass(frozen=True, slots=True)
class World:
    """What all processes share."""

    home: Path
    url: str
    agents: tuple[str, ...]

    @property
    def gave_up(self) -> Path:
        """Here the processes write down which of their requests got no answer in time."""
        return self.home / "gave-up"

    @property
    def rules(self) -> DiscoveryRules:
        provider = Provider(id="acme", token_url=self.url, token_encoding="form", client_id="acme-cli")
        return DiscoveryRules(Catalog({"acme": provider}))


class Doom:
    """Where this process dies: at the n-th coming of a point. `report` is told before."""

    def __init__(self, point: str, countdown: int, report: Callable[[str], None]) -> None:
        self.phase = ""
        self._point = point
        self._countdown = countdown
        self._report = report
        if point:  # a process that does not die at a point stays as it is: it may be that of the tests
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            sys.addaudithook(self._audit)

    def at(self, point: str) -> None:
        """Dies here, if this is where."""
        if self.comes(point):
            self.die(point)

    def comes(self, point: str) -> bool:
        if point != self._point:
            return False
        self._countdown -= 1
        return self._countdown < 0

    def comes_while_asking(self) -> bool:
        return self.comes("while asking")

    def die(self, point: str) -> NoReturn:
        """As `kill -9` does it."""
        self._report(point)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed, and goes on")

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        match event:
            case "open":
                self._opens(str(args[0]), int(args[2] or 0))
            case "os.rename" if self.phase:
                self.at(f"{self.phase}: before rename")
            case "os.remove" if str(args[0]).endswith(".lock"):
                self.at("before unlock")
            case "socket.connect":
                self.at("before connect")

    def _opens(self, path: str, flags: int) -> None:
        if path.endswith(".guard"):
            self.at("before lock")
        elif path.endswith(".json.new") and flags & os.O_CREAT:
            self.at(f"{self.phase}: before temp file")
            if self.comes(f"{self.phase}: middle of temp file"):
                self._report(self._point)
                half = Path(path).with_name("auth-profiles.json").stat().st_size // 2
                resource.setrlimit(resource.RLIMIT_FSIZE, (half, half))  # the kernel kills whoever writes more
        elif flags & os.O_DIRECTORY and self.phase:
            self.at(f"{self.phase}: after rename")


class Stores(AgentStores):
    """The real stores, with fault points between the steps."""

    def __init__(self, world: World, doom: Doom, notes: Notes) -> None:
        super().__init__(world.home, clock=SystemClock())
        self._doom = doom
        self._notes = notes
        self.wanted = ""

    @asynccontextmanager
    async def locked(self, agent: str) -> AsyncIterator[LockedStore]:
        async with super().locked(agent) as store:
            self._notes.hold(digest(store.document.entries[self.wanted]))
            self._doom.at("locked")
            yield Phased(store, self._doom)
        self._doom.at("unlocked")


class Phased:
    """A locked store that tells whoever is doomed which write it is at."""

    def __init__(self, store: LockedStore, doom: Doom) -> None:
        self._store = store
        self._doom = doom

    @property
    def document(self) -> AuthDocument:
        return self._store.document

    async def replace(self, document: AuthDocument) -> None:
        self._doom.phase = "intent"
        await self._store.replace(document)
        self._doom.at("intent: written")
        self._doom.phase = ""

    async def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        self._doom.phase = "outcome"
        edited = await self._store.edit(change)
        self._doom.at("outcome: written")
        self._doom.phase = ""
        return edited


class Endpoint(HttpTokenEndpoint):
    """The real one, with fault points around the call and in the middle of it.

    Each request has a name. `gave_up` lists the requests whose time ran out before the whole answer was read: the endpoint
    wrote more than arrived. A refusal of which only the status arrived is one of them.
    """

    def __init__(self, doom: Doom, chance: random.Random, *, gave_up: Path, within: float = WITHIN) -> None:
        super().__init__(within=within)
        self._doom = doom
        self._chance = chance
        self._gave_up = gave_up
        self._lasts = within

    async def ask(self, request: TokenRequest) -> TokenAnswer | RefreshFailure:
        loop = asyncio.get_running_loop()
        doomed = self._doom.comes_while_asking()
        end = loop.call_later(self._chance.uniform(0.0, 0.006), self._doom.die, "while asking") if doomed else None
        name, began = secrets.token_hex(8), time.monotonic()
        answer = await super().ask(replace(request, headers={**request.headers, "x-asked": name}))
        if end is not None:
            end.cancel()  # it was quick: next time, then
        if _is_incomplete(answer) and time.monotonic() - began >= self._lasts:
            with self._gave_up.open("a") as file:
                file.write(f"{name}\n")
        self._doom.at("answered")
        return answer


def _is_incomplete(answer: TokenAnswer | RefreshFailure) -> bool:
    if isinstance(answer, RefreshFailure):
        return answer.blame is Blame.UNCERTAIN
    return answer.status >= 400 and not answer.body


async def work(world: World, *, slot: int, notes: Notes, doom: Doom, seed: int) -> None:
    """Refreshes whatever is due, until SIGTERM; and now and then writes to a store as other programs do."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    chance = random.Random(seed)
    clock = SystemClock()
    stores = Stores(world, doom, notes)
    quiet = AgentStores(world.home, clock=clock)
    endpoint = Endpoint(doom, chance, gave_up=world.gave_up)
    redemption = Redemption(clock=clock, stores=LoginPlaces(stores), endpoint=endpoint, rules=world.rules)
    while not stopping.is_set():
        for agent in chance.sample(world.agents, len(world.agents)):
            document = await quiet.read(agent)
            unit = store_unit(document, rules=world.rules, source="", name="", origin="", owner=agent)
            for profile in chance.sample(unit.profiles, len(unit.profiles)):
                if profile.refresh is None or profile.reauth or profile.expires_at is None:
                    continue
                at = refresh_at(issued_at=profile.issued_at, expires_at=profile.expires_at, chance=chance.random())
                if clock.now() < at or stopping.is_set():
                    continue
                stores.wanted = profile.id
                try:
                    outcome = await redemption.redeem(profile)
                except StoreFault:
                    notes.count(len(_KINDS))
                else:
                    notes.count(_KINDS.index(outcome.kind))
            if chance.random() < 0.02:
                await quiet.edit(agent, lambda document: _tallied(document, slot))
                notes.edited()
        await clock.sleep(chance.uniform(0.0, 0.02))


def _tallied(document: AuthDocument, slot: int) -> AuthDocument:
    """A count that another program keeps in the store."""
    tallies = document.raw.get("tallies", {})
    return AuthDocument({**document.raw, "tallies": {**tallies, str(slot): tallies.get(str(slot), 0) + 1}})
