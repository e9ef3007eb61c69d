"""What profile stores remember of the use of their profiles, kept equal to what the broker knows: other programs honour it, and
write it as well.

A failure is written at once, mere use once a minute; what another program has written is taken over when it is read.
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
    """Keeps both sides equal. What cannot be written is kept and tried again; the broker's own state has it all the same.

    `_known` is what the stores say, as far as was read or written; `_dirty` what they should say instead.
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
        """Writes what is due, forever, one store after the other. No request waits for it."""
        while True:
            self._sooner.clear()
            now = self._clock.steady()
            for agent in [agent for agent, at in self._due.items() if at <= now]:
                await self._write(agent)
            wait = min(self._due.values(), default=now + _LONGEST) - self._clock.steady()
            await pause(self._clock, min(max(wait, 0.0), _LONGEST), sooner=self._sooner)

    # -- what the broker has seen --------------------------------------------------------------------------------------

    def usage_changed(self, key: Key, usage: Usage) -> None:
        """A listener of the registry's usage: what a store should say is written soon."""
        known = self._known.get(key)
        if known is not None:  # else it is in no store
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
        """In another thread, under the store's lock. An entry that has been removed is left out."""
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
            _log.warning("what is known of the use of profiles cannot be written for other programs: %s", fault)
        self._faults[agent] = fault

    # -- what other programs have seen ---------------------------------------------------------------------------------

    def adopted(self, material: Material) -> dict[Key, Usage]:
        """What the broker is to know from now on of profiles in stores that have just been read."""
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
    """When a store is read for the first time: its usage counts, unless the broker ended before a failure was written to it."""
    unwritten = ours.last_failure > max(theirs.last_failure, theirs.last_used)
    return replace(ours if unwritten else theirs, last_used=max(ours.last_used, theirs.last_used))
