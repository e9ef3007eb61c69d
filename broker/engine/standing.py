"""What every profile is worth now: material, what is remembered of its use, and the passing of time, in one place.

Everything that can change a profile's worth comes through here, and every change leaves through `listeners`: names only.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from broker.domain.cooldowns import Usage
from broker.domain.credentials import NEVER, Standing, assess
from broker.domain.material import Held, Material, changed
from broker.domain.profiles import State
from broker.domain.selection import Candidate
from broker.ports import Clock, StateStore
from broker.telemetry.events import CredentialStateChanged, Events

Key = tuple[str, str]
Listener = Callable[[frozenset[Key]], None]

_FRESH = Usage()


class Standings:
    """The board. Keys are (agent, profile id), agent "" for a profile every agent may be given."""

    def __init__(
        self, *, clock: Clock, store: StateStore, events: Events, warn_within: float, usage: Mapping[Key, Usage]
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._warn_within = warn_within
        self._usage = dict(usage)
        self._used: set[Key] = set()
        self._board: dict[Key, Candidate] = {}
        self._by_provider: dict[Key, set[Key]] = {}
        self._deadlines: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self.material = Material()
        self.listeners: list[Listener] = []
        self.wake: Callable[[], None] = lambda: None

    def find(self, agent: str, profile_id: str) -> tuple[Key, Candidate] | None:
        """The profile as the agent would see it: its own before everybody's."""
        for key in ((agent, profile_id), ("", profile_id)):
            candidate = self._board.get(key)
            if candidate is not None:
                return key, candidate
        return None

    def of(self, agent: str, provider: str) -> list[tuple[Key, Candidate]]:
        """The provider's profiles that the agent could be given, its own hiding everybody's of the same id."""
        own = self._by_provider.get((agent, provider), set()) if agent else set()
        ids = {profile_id for _, profile_id in own}
        shared = (key for key in self._by_provider.get(("", provider), ()) if key[1] not in ids)
        return [(key, self._board[key]) for key in (*own, *shared)]

    def all(self) -> Iterator[tuple[Key, Candidate]]:
        """Every profile."""
        yield from self._board.items()

    def serves(self, provider: str) -> bool:
        """Whether health may count on a profile of the provider, whoever it belongs to."""
        return any(
            self._board[key].standing.serving
            for (_, of_provider), keys in self._by_provider.items()
            if of_provider == provider
            for key in keys
        )

    def providers(self) -> set[str]:
        """Every provider that has a profile, usable or not."""
        return {provider for _, provider in self._by_provider}

    def replace_material(self, material: Material) -> frozenset[Key]:
        """New material is in effect. Returns what changed, after telling the listeners."""
        before, self.material = self.material, material
        keys = changed(before, material)
        for key in keys:
            if key in before.held and key not in material.held:
                self._drop(key)
        return self._reassess(keys)

    def usage(self, key: Key) -> Usage:
        """What is remembered of the profile's use."""
        return self._usage.get(key, _FRESH)

    def replace_usage(self, key: Key, usage: Usage) -> None:
        """Something worth remembering happened to the profile."""
        self._usage[key] = usage
        self._store.put_usage(key, usage)
        self._reassess([key])

    def touch(self, key: Key, candidate: Candidate) -> None:
        """The profile was handed out. Moves nothing but the memory of when; stored with `flush_used`."""
        usage = replace(candidate.usage, last_used=self._clock.now())
        self._usage[key] = usage
        self._board[key] = Candidate(candidate.held, candidate.standing, usage)
        self._used.add(key)

    def flush_used(self) -> None:
        """Stores when profiles were last used."""
        for key in self._used:
            self._store.put_usage(key, self._usage[key])
        self._used.clear()

    def tick(self) -> float:
        """Takes the passing of time into account. Returns when to come again, in seconds since the epoch."""
        now = self._clock.now()
        due: set[Key] = set()
        while self._deadlines and self._deadlines[0][0] <= now:
            key = heapq.heappop(self._deadlines)[1]
            self._due.pop(key, None)
            due.add(key)
        self._reassess(due)
        return self._deadlines[0][0] if self._deadlines else NEVER

    def reassess_all(self) -> None:
        """After a jump of the wall clock every judgement is stale, also those whose time had not come."""
        self._deadlines.clear()
        self._due.clear()
        self._reassess(list(self._board))

    def _reassess(self, keys: Iterable[Key]) -> frozenset[Key]:
        now = self._clock.now()
        seen = frozenset(keys)
        for key in seen:
            held = self.material.held.get(key)
            if held is not None:
                self._place(key, held, now)
        if seen:
            for listener in self.listeners:
                listener(seen)
        return seen

    def _place(self, key: Key, held: Held, now: float) -> None:
        usage = self.usage(key)
        standing = assess(held, usage, now=now, warn_within=self._warn_within)
        before = self._board.get(key)
        self._board[key] = Candidate(held, standing, usage)
        self._by_provider.setdefault((key[0], held.profile.provider), set()).add(key)
        if standing.valid_until < NEVER and self._due.get(key) != standing.valid_until:
            self._due[key] = standing.valid_until
            sooner = not self._deadlines or standing.valid_until < self._deadlines[0][0]
            heapq.heappush(self._deadlines, (standing.valid_until, key))
            if sooner:
                self.wake()
        self._announce(held, None if before is None else before.standing, standing)

    def _drop(self, key: Key) -> None:
        gone = self._board.pop(key, None)
        if gone is None:
            return
        profile = gone.held.profile
        keys = self._by_provider[key[0], profile.provider]
        keys.discard(key)
        if not keys:
            del self._by_provider[key[0], profile.provider]
        self._events.emit(
            CredentialStateChanged(
                profile=profile.id,
                provider=profile.provider,
                before=gone.standing.state.value,
                after=State.MISSING.value,
                reason=f"{profile.source} no longer holds it",
            )
        )

    def _announce(self, held: Held, before: Standing | None, after: Standing) -> None:
        old = None if before is None else before.state
        if old is after.state:
            return
        profile = held.profile
        self._events.emit(
            CredentialStateChanged(
                profile=profile.id,
                provider=profile.provider,
                before="" if old is None else old.value,
                after=after.state.value,
                reason=after.reason or profile.origin,
            )
        )
