"""Ingests the events of the sources: event → material → changed profiles. Each source has its own task.

A source that raises an unexpected exception counts as unavailable. It is started again after a delay.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.claims import ProfileLocation, with_place
from equabot_broker.domain.ends import FirstSeen, judge
from equabot_broker.domain.material import (
    Material,
    Shadowed,
    SourceEvent,
    SourceState,
    SourceUnavailable,
    UnitsListed,
    apply,
    merge,
)
from equabot_broker.domain.profiles import Profile
from equabot_broker.engine.profiles.listeners import notify
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.timing.clock import pause
from equabot_broker.ports import Clock, Source, StateStore, StoredVersion
from equabot_broker.telemetry.credential_events import (
    ProfilesChanged,
    SourceDoubted,
    SourceRecovered,
    SourceStale,
    SourceSynced,
)
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.incidents import incident

_REREAD_WITHIN: Final = 10.0
_FAULTS_LOGGED: Final = 20
_AGAIN: Final = {"base": 0.5, "cap": 30.0}
"""Delays in seconds before a source is started again after an unexpected exception."""


@dataclass(slots=True, eq=False)
class FollowedSource:
    """A source with its state. `count` is the number of its full reports. Until it is `live` it changes nothing."""

    source: Source
    state: SourceState
    count: int = 0
    live: bool = True
    task: "asyncio.Task[None] | None" = None
    sooner: asyncio.Event = field(default_factory=asyncio.Event)


class Ingest:
    """Keeps the material equal to the content of the sources. They are in order of precedence."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        tail: frozenset[str],
        clock: Clock,
        store: StateStore,
        events: Events,
        registry: ProfileRegistry,
        stale_budget: float,
        versions: Mapping[Key, StoredVersion],
    ) -> None:
        self._followed = [FollowedSource(source, SourceState(source.name)) for source in sources]
        self._group: asyncio.TaskGroup | None = None
        self._tail = tail
        self._clock = clock
        self._store = store
        self._events = events
        self._registry = registry
        self._versions = dict(versions)
        self._last_version = max((stored.version for stored in versions.values()), default=0)
        self._read = asyncio.Condition()
        self._ends: dict[Key, FirstSeen | None] = {}
        self.stale_budget = stale_budget
        self.listeners: list[Callable[[], None]] = []
        registry.replace_material(self._merged())

    async def run(self) -> None:
        """Follows every source, forever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for followed in self._followed:
                self._begin(group, followed)
            await asyncio.Event().wait()

    def _begin(self, group: asyncio.TaskGroup, followed: FollowedSource) -> None:
        followed.task = group.create_task(self._follow(followed), name=f"source {followed.source.name}")

    @property
    def states(self) -> list[SourceState]:
        """The state of each source, in order."""
        return [followed.state for followed in self._followed]

    async def following(self, sources: Sequence[Source], *, within: float = _REREAD_WITHIN) -> list[FollowedSource]:
        """Starts the new ones among these sources, and waits at most `within` seconds for their first full report.

        Their content has no effect before `apply`. If `apply` is not called, `discard` stops them. Without a running `run`
        nothing is read.
        """
        known = {followed.source: followed for followed in self._followed}
        wanted = [known.get(source) or FollowedSource(source, SourceState(source.name), live=False) for source in sources]
        new = [followed for followed in wanted if not followed.live]
        if self._group is not None:
            for followed in new:
                self._begin(self._group, followed)
            try:
                await self.wait_for(lambda: all(followed.count for followed in new), within=within)
            except BaseException:
                self.discard(new)
                raise
        return wanted

    def discard(self, followed: Iterable[FollowedSource]) -> None:
        """Stops those that are not in effect."""
        for one in followed:
            if one not in self._followed and one.task is not None:
                one.live = False
                one.task.cancel()

    def apply(
        self, followed: Sequence[FollowedSource], *, tail: frozenset[str], stale_budget: float, known: Callable[[Profile], bool]
    ) -> None:
        """Another configuration is in effect: replaces the sources in one update.

        A new source that could not be read yet keeps the profiles of the former source with its name, if they are `known`.
        """
        began = self._clock.steady()
        before = {one.state.name: one.state for one in self._followed}
        dropped, self._followed = self._followed, list(followed)
        for one in followed:
            if not one.live:
                one.live, one.state = True, _continued(before.get(one.state.name), one.state, known)
        self.discard(dropped)
        self._tail, self.stale_budget = tail, stale_budget
        self._changed("configuration", began, self._merged())

    @property
    def attempted(self) -> bool:
        """Whether each source has been read or has failed at least once."""
        return all(state.attempted for state in self.states)

    @property
    def synced(self) -> bool:
        """Whether each source has been read in full at least once."""
        return all(state.synced_at is not None for state in self.states)

    @property
    def shadowed(self) -> tuple[Shadowed, ...]:
        """Profiles that another source hides."""
        return self._registry.material.shadowed

    async def wait_attempted(self) -> None:
        """Waits until `attempted`."""
        async with self._read:
            await self._read.wait_for(lambda: self.attempted)

    async def wait_for(self, came: Callable[[], bool], *, within: float) -> bool:
        """Waits at most `within` seconds for the condition, and returns whether it holds. Each read checks it."""
        try:
            async with asyncio.timeout(within), self._read:
                await self._read.wait_for(came)
        except TimeoutError:
            return False
        return True

    async def reread(self, *, within: float = _REREAD_WITHIN) -> bool:
        """Makes every source read again. Returns whether all have done so within `within` seconds."""
        before = [(followed, followed.count) for followed in self._followed]
        for followed, _ in before:
            self._ask(followed)
        return await self.wait_for(lambda: all(one.count > n or one not in self._followed for one, n in before), within=within)

    def look_again(self, source: str) -> None:
        """Makes the source with that name read again."""
        for known in self._followed:
            if known.source.name == source:
                self._ask(known)

    def _ask(self, followed: FollowedSource) -> None:
        followed.sooner.set()
        try:
            followed.source.reread()
        except Exception as error:  # noqa: BLE001 - a port: its events report its fault
            incident("source", followed.source.name, error)

    async def _follow(self, followed: FollowedSource) -> None:
        name, waits = followed.source.name, delays(**_AGAIN, rng=random.random)
        while True:
            events: AsyncIterator[SourceEvent] | None = None
            try:
                events = followed.source.events()
                async for event in events:
                    await self._receive(followed, event)
                    waits = delays(**_AGAIN, rng=random.random)
            except Exception as error:  # noqa: BLE001 - a port: the other sources continue
                fault = incident("source", name, error)
            else:
                fault = incident("source", name, RuntimeError("its events ended, but they must run forever"))
            followed.sooner.clear()
            await self._receive(followed, SourceUnavailable(f"{name} cannot be read: {fault}"))
            if isinstance(events, AsyncGenerator):
                with suppress(Exception):
                    await events.aclose()
            await pause(self._clock, next(waits), sooner=followed.sooner)

    async def _receive(self, followed: FollowedSource, event: SourceEvent) -> None:
        if followed.live:
            self._take(self._followed.index(followed), event)
        else:
            followed.state = apply(followed.state, event, now=self._clock.now())
        # A report about one unit does not answer `reread`.
        followed.count += isinstance(event, UnitsListed | SourceUnavailable)
        async with self._read:
            self._read.notify_all()

    def _take(self, index: int, event: SourceEvent) -> None:
        began = self._clock.steady()
        followed = self._followed[index]
        before = followed.state
        followed.state = apply(before, event, now=self._clock.now())
        try:
            merged = self._merged()
        except Exception:
            followed.state = before  # otherwise the next merge would fail for every source
            raise
        self._changed(before.name, began, merged, lambda: self._report(before, followed.state))

    def _changed(self, name: str, began: float, merged: Material, report: Callable[[], None] = lambda: None) -> None:
        """Replaces the material, and notifies the listeners."""
        keys = self._registry.replace_material(merged)
        self._store.flush()
        report()
        notify(self.listeners)
        if keys:
            names = tuple(sorted(profile for _, profile in keys))
            self._events.emit(ProfilesChanged(profiles=names, source=name, seconds=self._clock.steady() - began))

    def _merged(self) -> Material:
        return merge(
            self.states, version=self._number, stale_budget=self.stale_budget, tail=self._tail, places=self._places,
            judged=self._judged,
        )  # fmt: skip

    def _places(self, key: Key) -> Sequence[ProfileLocation]:
        stored = self._versions.get(key)
        return () if stored is None else stored.places

    def _judged(self, profile: Profile) -> Profile:
        """The profile with the end that applies. The observation of its end is stored with its number."""
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
        """The version of the profile's material. Equal material keeps its number, also across a restart.

        New material gets a number above all others, so that the number also identifies the profile.
        """
        key = (profile.agent, profile.id)
        held = self._registry.material.held.get(key)
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

    def _report(self, before: SourceState, after: SourceState) -> None:
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
    """The faults and notes of units that can be read."""
    found = (fault.message for unit in state.units.values() for fault in (*unit.faults, *unit.notes))
    return tuple(islice(found, _FAULTS_LOGGED))


def _continued(before: SourceState | None, now: SourceState, known: Callable[[Profile], bool]) -> SourceState:
    """The state of a new source, completed with units of the source that it replaces."""
    if before is None or (now.synced_at is not None and not now.stale_units):
        return now
    kept = {
        name: replace(unit, profiles=tuple(filter(known, unit.profiles)))
        for name, unit in before.units.items()
        if now.synced_at is None or name in now.stale_units
    }
    if now.attempted:
        synced = before.synced_at if now.synced_at is None else now.synced_at
        return replace(now, units=kept | dict(now.units), synced_at=synced)
    return replace(before, units=kept)
