"""Agents' stores without a disk, and the source that follows them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import UnitsListed
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_entries import store_unit
from equabot_broker.ports import LockedStore, StoreFault
from tests.fakes.source import FakeSource


class MemoryProfileStore:
    """Fulfils `ports.ProfileStore`. While `broken` says why, nothing is read or written. `locks` counts how often one
    was locked; `written` is called after what is written under one."""

    def __init__(self) -> None:
        self.locks = 0
        self.documents: dict[str, AuthDocument] = {}
        self.broken = ""
        self.written: Callable[[], None] = lambda: None
        self._locks: dict[str, asyncio.Lock] = {}

    def put(self, agent: str, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """What a program that ignores locks leaves there."""
        self.documents[agent or "main"] = AuthDocument({"version": 1, "profiles": dict(entries)})

    def entry(self, profile_id: str, agent: str = "main") -> Mapping[str, Any]:
        """An entry as it is now."""
        return self.documents[agent].entries[profile_id]

    @asynccontextmanager
    async def locked(self, agent: str) -> AsyncIterator[LockedStore]:
        """One at a time."""
        name = agent or "main"
        async with self._locks.setdefault(name, asyncio.Lock()):
            self.locks += 1
            yield _Locked(self, name)

    async def read(self, agent: str) -> AuthDocument:
        self._check()
        return self.documents.get(agent or "main", AuthDocument())

    async def edit(self, agent: str, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        async with self.locked(agent) as locked:
            return await locked.edit(change)

    def _check(self) -> None:
        if self.broken:
            raise StoreFault(self.broken)


class _Locked:
    def __init__(self, stores: MemoryProfileStore, name: str) -> None:
        stores._check()
        self._stores = stores
        self._name = name
        self._read = stores.documents.get(name, AuthDocument())

    @property
    def document(self) -> AuthDocument:
        return self._read

    async def replace(self, document: AuthDocument) -> None:
        self._stores._check()
        if self._stores.documents.get(self._name, AuthDocument()) != self._read:
            raise StoreFault("it was changed by a program that ignores its lock: try again")
        self._read = self._stores.documents[self._name] = document
        self._stores.written()

    async def edit(self, change: Callable[[AuthDocument], AuthDocument]) -> AuthDocument:
        self._stores._check()
        self._read = self._stores.documents[self._name] = change(self._stores.documents.get(self._name, AuthDocument()))
        self._stores.written()
        return self._read


class StoreSource(FakeSource):
    """Delivers what the stores hold when it is asked to read again, and after what is written under a lock; while `deaf` it
    does not."""

    def __init__(self, stores: MemoryProfileStore, rules: DiscoveryRules) -> None:
        super().__init__("profile_store")
        self._stores = stores
        self._rules = rules
        stores.written = self._look

    def reread(self) -> None:
        """Reads them."""
        self.rereads += 1
        self._look()

    def _look(self) -> None:
        if not self.deaf:
            units = (
                store_unit(document, rules=self._rules, source=self.name, name=agent, origin=f"{agent}'s store", owner=agent)
                for agent, document in self._stores.documents.items()
            )
            self.push(UnitsListed(tuple(units)))
