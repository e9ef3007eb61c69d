"""The stores of all agents, for the event loop: threads read and write the files. Implements `ports.ProfileStore`."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from equabot_broker.domain.policies import MAIN
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.ports import Clock, LockedStore, StoreFault
from equabot_broker.storage.auth_profiles import AuthProfiles, Locked
from equabot_broker.storage.sealing import Seal

T = TypeVar("T")
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class AgentStores:
    """The stores under `<home>/agents/<agent>/agent/`."""

    def __init__(self, home: Path, *, clock: Clock, seal: Seal | None = None) -> None:
        self._home = home
        self._clock = clock
        self._seal = seal

    def directory(self, agent: str) -> Path:
        """The directory of the agent's store. Raises StoreFault for an invalid name of an agent."""
        name = agent or MAIN
        if not _SAFE.fullmatch(name):
            raise StoreFault("that is not a valid name of an agent: use a-z, 0-9, - and _")
        return self._home / "agents" / name / "agent"

    def of(self, agent: str) -> AuthProfiles:
        """The agent's store. Its methods block. Raises StoreFault."""
        path = self.directory(agent) / "auth-profiles.json"
        seal = None if self._seal is None else self._seal.of(path.relative_to(self._home).as_posix())
        return AuthProfiles(path, clock=self._clock, seal=seal)

    async def read(self, agent: str) -> AuthDocument:
        """The store as it is now. Raises StoreFault."""
        return await asyncio.to_thread(self.of(agent).read)

    async def edit(self, agent: str, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        """Reads, changes and writes the store under its lock, and returns it. Raises StoreFault."""
        store = self.of(agent)
        abandoned = threading.Event()
        try:
            return await asyncio.to_thread(store.edit, change, abandoned=abandoned)
        finally:
            abandoned.set()

    @asynccontextmanager
    async def locked(self, agent: str) -> AsyncIterator[LockedStore]:
        """The store, locked against every other writer while the context lasts. Raises StoreFault."""
        store = self.of(agent)
        abandoned = threading.Event()
        taking = asyncio.get_running_loop().run_in_executor(None, lambda: store.lock(abandoned=abandoned))
        try:
            held = await asyncio.shield(taking)
        except asyncio.CancelledError:
            abandoned.set()
            taking.add_done_callback(_release)
            raise
        try:
            yield _LockedStore(held)
        finally:
            # Not awaited, so that a cancellation cannot interrupt it. It waits for a running write.
            held.release()


class _LockedStore:
    """Implements `ports.LockedStore`."""

    def __init__(self, held: Locked) -> None:
        self._held = held

    @property
    def document(self) -> AuthDocument:
        return self._held.document

    async def replace(self, document: AuthDocument) -> None:
        await asyncio.to_thread(self._held.replace, document)

    async def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        return await asyncio.to_thread(self._held.edit, change)


def _release(taken: "asyncio.Future[Locked]") -> None:
    if not taken.cancelled() and taken.exception() is None:
        taken.result().release()
