"""Synchronises the usage in profile stores with the usage in the broker. Other programs read and write it as well.

A failure is written at once, and a time of last use once a minute. Usage that another program wrote is adopted when the store
is read.
"""

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import Material
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.provider import Catalog
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.timing.clock import pause
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.auth_entries import entry_ids
from equabot_broker.formats.auth_usage import as_stored, merged, restored, usage_of, with_usage
from equabot_broker.ports import Clock, ProfileStore, StoreFault
from equabot_broker.telemetry.incidents import incident

_log = logging.getLogger("equabot.stores")

_USED_EVERY: Final = 60.0
_RETRY_FIRST: Final = 1.0
_RETRY_LAST: Final = 300.0
_LONGEST: Final = 60.0


class UsageSync:
    """Keeps both sides equal. A failed write is repeated; the state of the broker has the usage in any case.

    `_known` is the usage in the stores as it was last read or written; `_dirty` is the usage that must be written.
    """

    def __init__(self, *, clock: Clock, registry: ProfileRegistry, stores: ProfileStore, catalog: Catalog) -> None:
        self._clock = clock
        self._registry = registry
        self._stores = stores
        self._catalog = catalog
        self._known: dict[Key, Usage] = {}
        self._dirty: dict[Key, Usage] = {}
        self._writing: dict[Key, Usage] = {}
        self._due: dict[str, float] = {}
        self._retries: dict[str, Iterator[float]] = {}
        self._faults: dict[str, str] = {}
        self._sooner = asyncio.Event()

    def apply(self, catalog: Catalog) -> None:
        """Another configuration is in effect."""
        self._catalog = catalog

    async def run(self) -> None:
        """Writes changed usage, forever, one store after the other. No request waits for it."""
        while True:
            self._sooner.clear()
            now = self._clock.steady()
            for agent in [agent for agent, at in self._due.items() if at <= now]:
                await self._write(agent)
            wait = min(self._due.values(), default=now + _LONGEST) - self._clock.steady()
            await pause(self._clock, min(max(wait, 0.0), _LONGEST), sooner=self._sooner)

    # -- usage from the broker -----------------------------------------------------------------------------------------

    def usage_changed(self, key: Key, usage: Usage) -> None:
        """A listener of the registry's usage: plans the write to the store."""
        known = self._known.get(key)
        if known is not None:  # otherwise no store has the profile
            self._want(key, as_stored(usage), known)

    def _want(self, key: Key, usage: Usage, known: Usage) -> None:
        if usage == known:
            self._dirty.pop(key, None)
            return
        self._dirty[key] = usage
        used_alone = replace(usage, last_used=known.last_used) == known
        self._plan(key[0], self._clock.steady() + (_USED_EVERY if used_alone else 0.0))

    def _plan(self, agent: str, at: float) -> None:
        if agent not in self._retries and at < self._due.get(agent, float("inf")):
            self._due[agent] = at
            self._sooner.set()

    async def _write(self, agent: str) -> None:
        del self._due[agent]
        batch = {key: usage for key, usage in self._dirty.items() if key[0] == agent}
        if batch:
            self._writing = {}
            try:
                await self._stores.edit(agent, partial(self._changed, batch=batch))
            except StoreFault as fault:
                self._failed(agent, str(fault))
                return
            except Exception as error:  # noqa: BLE001 - a port: it is tried again
                self._failed(agent, str(incident("profile_store", f"of {agent or MAIN}", error)))
                return
        self._retries.pop(agent, None)
        self._faults.pop(agent, None)
        self._wrote(batch)
        if any(key[0] == agent for key in self._dirty):
            self._plan(agent, self._clock.steady())

    def _changed(self, document: AuthDocument, batch: Mapping[Key, Usage]) -> AuthDocument:
        """Changes the document in another thread, under the lock of the store. Entries that were removed are skipped."""
        names = entry_ids(document, self._catalog)
        changed = {}
        for key, ours in batch.items():
            name = names.get(key[1])
            if name is not None:
                theirs = usage_of(document, name)
                self._writing[key] = changed[name] = merged(self._known.get(key, theirs), ours=ours, theirs=theirs)
        return with_usage(document, changed)

    def _wrote(self, batch: Mapping[Key, Usage]) -> None:
        written, self._writing = self._writing, {}
        for key, usage in batch.items():
            if key in written and key in self._known:
                self._known[key] = written[key]
            if self._dirty.get(key) == usage:
                del self._dirty[key]
                if key in written and written[key] != usage:
                    ours = self._registry.usage(key)
                    self._registry.replace_usage(key, restored(written[key], known=usage, ours=ours))

    def _failed(self, agent: str, fault: str) -> None:
        fresh = delays(base=_RETRY_FIRST, cap=_RETRY_LAST, rng=random.random)
        self._due[agent] = self._clock.steady() + next(self._retries.setdefault(agent, fresh))
        if self._faults.get(agent) != fault:
            _log.warning("the usage of profiles cannot be written to a profile store: %s", fault)
        self._faults[agent] = fault

    # -- usage from other programs -------------------------------------------------------------------------------------

    def adopted(self, material: Material) -> dict[Key, Usage]:
        """The usage that the broker must adopt from stores that were just read."""
        for gone in self._known.keys() - material.usage.keys():
            del self._known[gone]
            self._dirty.pop(gone, None)
        adopted = {}
        for key, theirs in material.usage.items():
            known, ours = self._known.get(key), as_stored(self._registry.usage(key))
            if theirs in (known, self._writing.get(key)):
                continue
            mine = self._dirty.get(key, known)
            usage = _begun(ours, theirs) if known is None or mine is None else merged(known, ours=mine, theirs=theirs)
            self._known[key] = theirs
            self._want(key, usage, theirs)
            if usage != ours:
                adopted[key] = restored(usage, known=known, ours=self._registry.usage(key))
        return adopted


def _begun(ours: Usage, theirs: Usage) -> Usage:
    """The usage at the first read of a store: that of the store, unless the broker has a newer failure that is not written."""
    unwritten = ours.last_failure > max(theirs.last_failure, theirs.last_used)
    return replace(ours if unwritten else theirs, last_used=max(ours.last_used, theirs.last_used))
