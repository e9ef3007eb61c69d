"""Taking in what the sources hold: event → material → who is affected. One task a source; they do not wait for each other."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from broker.domain.claims import Place, with_place
from broker.domain.ends import FirstSeen, judge
from broker.domain.material import Event, Listed, Material, Shadowed, SourceState, Unavailable, apply, merge
from broker.domain.profiles import Profile
from broker.engine.standing import Key, Standings
from broker.ports import Clock, Source, StateStore, StoredVersion
from broker.telemetry.events import Events, ProfilesChanged, SourceDoubted, SourceRecovered, SourceStale, SourceSynced

_REREAD_WITHIN: Final = 10.0
_FAULTS_LOGGED: Final = 20


class Ingesting:
    """Keeps the material equal to the sources, in the order of precedence in which they are given."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        tail: frozenset[str],
        clock: Clock,
        store: StateStore,
        events: Events,
        standings: Standings,
        stale_budget: float,
        versions: Mapping[Key, StoredVersion],
    ) -> None:
        self._sources = tuple(sources)
        self._tail = tail
        self._clock = clock
        self._store = store
        self._events = events
        self._standings = standings
        self._versions = dict(versions)
        self._last_version = max((stored.version for stored in versions.values()), default=0)
        self._heard = asyncio.Condition()
        self._ends: dict[Key, FirstSeen | None] = {}
        self._counts = [0] * len(self._sources)
        self.stale_budget = stale_budget
        self.states = [SourceState(source.name) for source in self._sources]
        self.listeners: list[Callable[[], None]] = []
        standings.replace_material(self._merged())

    async def run(self) -> None:
        """Follows every source, forever."""
        async with asyncio.TaskGroup() as group:
            for index, source in enumerate(self._sources):
                group.create_task(self._follow(index, source), name=f"source {source.name}")

    @property
    def settled(self) -> bool:
        """Whether every source has been read, or is known to be unreadable."""
        return all(state.settled for state in self.states)

    @property
    def synced(self) -> bool:
        """Whether every source has been read in full at least once."""
        return all(state.synced_at is not None for state in self.states)

    @property
    def shadowed(self) -> tuple[Shadowed, ...]:
        """Profiles that another source hides."""
        return self._standings.material.shadowed

    async def wait_settled(self) -> None:
        """Returns once `settled`."""
        async with self._heard:
            await self._heard.wait_for(lambda: self.settled)

    async def wait_for(self, came: Callable[[], bool], *, within: float) -> bool:
        """Whether that came, after something was read, within so many seconds."""
        try:
            async with asyncio.timeout(within), self._heard:
                await self._heard.wait_for(came)
        except TimeoutError:
            return False
        return True

    async def reread(self, *, within: float = _REREAD_WITHIN) -> bool:
        """Makes every source read again. Returns whether all of them did within so many seconds."""
        before = list(self._counts)
        for source in self._sources:
            source.reread()
        return await self.wait_for(lambda: all(n > b for n, b in zip(self._counts, before, strict=True)), within=within)

    def look_again(self, source: str) -> None:
        """Makes the source of that name read again, soon."""
        for known in self._sources:
            if known.name == source:
                known.reread()

    async def _follow(self, index: int, source: Source) -> None:
        async for event in source.events():
            self._take(index, event)
            # What a source says of one unit is not yet an answer to `reread`.
            self._counts[index] += isinstance(event, Listed | Unavailable)
            async with self._heard:
                self._heard.notify_all()
        raise RuntimeError(f"source {source.name} has ended, which it never should")

    def _take(self, index: int, event: Event) -> None:
        began = self._clock.steady()
        now = self._clock.now()
        before = self.states[index]
        after = self.states[index] = apply(before, event, now=now)
        keys = self._standings.replace_material(self._merged())
        self._store.flush()
        self._tell(before, after)
        for listener in self.listeners:
            listener()
        if keys:
            names = tuple(sorted(profile for _, profile in keys))
            self._events.emit(ProfilesChanged(profiles=names, source=after.name, seconds=self._clock.steady() - began))

    def _merged(self) -> Material:
        return merge(
            self.states, version=self._number, stale_budget=self.stale_budget, tail=self._tail, places=self._places,
            judged=self._judged,
        )  # fmt: skip

    def _places(self, key: Key) -> Sequence[Place]:
        stored = self._versions.get(key)
        return () if stored is None else stored.places

    def _judged(self, profile: Profile) -> Profile:
        """The profile with the end that counts. What is to be remembered of its end is stored with its number."""
        key = (profile.agent, profile.id)
        if profile.declared is None:
            self._ends.pop(key, None)
            return profile
        judged, seen = judge(profile, self._seen(key), lambda value: value.digest(self._store.digest_key, "end"))
        self._ends[key] = seen
        return judged

    def _seen(self, key: Key) -> FirstSeen | None:
        stored = self._versions.get(key)
        return None if stored is None else stored.seen

    def _number(self, profile: Profile) -> int:
        """Equal material keeps its number, also across a restart; anything new gets one greater than all before, so that a
        number also tells whose material it is."""
        key = (profile.agent, profile.id)
        held = self._standings.material.held.get(key)
        if held is not None and held.profile == profile:
            return held.version
        stored = self._versions.get(key)
        digest = b"" if profile.secret is None else profile.secret.digest(
            self._store.digest_key, f"{profile.mode} {profile.expires_at}"
        )  # fmt: skip
        places = with_place(self._places(key), (profile.source, profile.unit))
        if stored is None or stored.digest != digest:
            self._last_version = max(int(self._clock.now() * 1000), self._last_version + 1)
            now = StoredVersion(version=self._last_version, digest=digest, places=places, seen=self._ends.get(key))
        else:
            now = replace(stored, places=places, seen=self._ends.get(key))
        if now != stored:
            self._versions[key] = now
            self._store.put_version(key, now)
        return now.version

    def _tell(self, before: SourceState, after: SourceState) -> None:
        old, new = _trouble(before), _trouble(after)
        if new and new != old:
            self._events.emit(SourceStale(source=after.name, fault=new))
        elif old and not new:
            self._events.emit(SourceRecovered(source=after.name))
        new_faults = _faults(after)
        if new_faults and new_faults != _faults(before):
            self._events.emit(SourceDoubted(source=after.name, faults=new_faults))
        if after.synced_at is not None and (before.synced_at is None or (old and not new)):
            profiles = sum(len(unit.profiles) for unit in after.units.values())
            self._events.emit(SourceSynced(source=after.name, profiles=profiles))


def _trouble(state: SourceState) -> str:
    return state.fault or "; ".join(f"{unit}: {fault}" if unit else fault for unit, (fault, _) in state.stale_units.items())


def _faults(state: SourceState) -> tuple[str, ...]:
    """What is wrong inside its units, which can be read."""
    return tuple(islice((fault.message for unit in state.units.values() for fault in unit.faults), _FAULTS_LOGGED))
