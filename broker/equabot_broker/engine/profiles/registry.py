"""The current state of every profile, derived from its material, its usage and the time.

Every change of a state goes through this module. `listeners` get the keys of changed profiles.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from equabot_broker.domain.cooldowns import Usage, obstacles, shifted
from equabot_broker.domain.credentials import Assessment, RefreshTrouble, assess
from equabot_broker.domain.evidence import Evidence, overlaid
from equabot_broker.domain.material import HeldProfile, Material, changed
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.domain.selection import Candidate
from equabot_broker.engine.profiles.evidence import AgentEvidence
from equabot_broker.engine.profiles.listeners import ChangeQueue, notify
from equabot_broker.engine.profiles.trials import Trials
from equabot_broker.engine.timing.deadlines import Deadlines
from equabot_broker.ports import Clock, StateStore
from equabot_broker.telemetry.credential_events import CredentialStateChanged
from equabot_broker.telemetry.events import Events

Key = tuple[str, str]

_FRESH = Usage()


def _is_other(held: HeldProfile, version: int, before: HeldProfile | None) -> bool:
    """Whether `held` is another credential than the one of this version, which was last in `before`."""
    if held.profile.mode in (Mode.API_KEY, Mode.TOKEN):
        return held.version != version
    accounts = ("", "") if before is None else (before.profile.account, held.profile.account)
    return all(accounts) and accounts[0] != accounts[1]


class ProfileRegistry:
    """All profiles by (agent, profile id), with agent "" for a profile of all agents.

    The evidence of an agent changes only the state of a shared profile for that agent. `listeners` get one change after the
    other. They read the newest state, which may be ahead of the change. `generation` grows with every change.
    `usage_listeners` get every change of a usage. `usage_in_stores` returns the usage that other programs stored in new
    material.
    """

    def __init__(
        self, *, clock: Clock, store: StateStore, events: Events, warn_within: float, usage: Mapping[Key, Usage]
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._warn_within = warn_within
        self._usage = dict(usage)
        self._used_at: dict[Key, float] = {}
        self._troubles: dict[Key, RefreshTrouble] = {}
        self._evidence = AgentEvidence()
        self._trials = Trials()
        self._candidates: dict[Key, Candidate] = {}
        self._by_provider: dict[Key, set[Key]] = {}
        self._changes: ChangeQueue[Key] = ChangeQueue()
        self.deadlines: Deadlines[Key] = Deadlines()
        self.material = Material()
        self._secrets: tuple[Material, tuple[SecretValue, ...]] = (self.material, ())
        self.listeners = self._changes.listeners
        self.usage_listeners: list[Callable[[Key, Usage], None]] = []
        self.usage_in_stores: Callable[[Material], Mapping[Key, Usage]] = lambda _: {}
        self.generation = 0

    # -- reading -------------------------------------------------------------------------------------------------------

    def find(self, agent: str, profile_id: str) -> tuple[Key, Candidate] | None:
        """The profile for the agent: its own before the shared one. `last_used` may be a few seconds old."""
        for key in ((agent, profile_id), ("", profile_id)):
            candidate = self._candidates.get(key)
            if candidate is not None:
                return key, self._as_seen_by(agent, key, candidate)
        return None

    def of(self, agent: str, provider: str) -> list[tuple[Key, Candidate]]:
        """The provider's profiles for the agent. An own profile replaces the shared one with the same id."""
        own = self._by_provider.get((agent, provider), set())
        shared = self._by_provider.get(("", provider), set())
        seen = own | {key for key in shared if (agent, key[1]) not in self._candidates}
        return [(key, self._as_seen_by(agent, key, self._with_last_use(key))) for key in seen]

    def all(self) -> Iterator[tuple[Key, Candidate]]:
        """Every profile."""
        yield from self._candidates.items()

    def judge(self, key: Key, agent: str = "") -> Candidate:
        """The profile with a new assessment, for all agents or for one. Raises KeyError."""
        held, usage = self._candidates[key].held, self.usage(key)
        candidate = Candidate(held, self._assess(key, held, usage, self._clock.now()), usage)
        return self._as_seen_by(agent, key, candidate)

    def holders(self, profile_id: str) -> list[Candidate]:
        """The profiles with that id, of all agents."""
        agents = {agent for agent, _ in self._by_provider}
        return [self._candidates[agent, profile_id] for agent in agents if (agent, profile_id) in self._candidates]

    def providers(self) -> set[str]:
        """The providers that have a profile, usable or not."""
        return {provider for _, provider in self._by_provider}

    def remembered(self, key: Key) -> Usage:
        """The usage of the profile, without a later `touch`."""
        return self._usage.get(key, _FRESH)

    def usage(self, key: Key) -> Usage:
        """The usage of the profile."""
        usage = self.remembered(key)
        used_at = self._used_at.get(key)
        return usage if used_at is None else replace(usage, last_used=used_at)

    def trouble(self, key: Key) -> RefreshTrouble | None:
        """The refresh trouble of a login, or None."""
        return self._troubles.get(key)

    def evidence(self, key: Key) -> Mapping[str, Evidence]:
        """The evidence about the shared profile, by agent."""
        return {} if key[0] else self._evidence.of(key[1])

    def secrets(self) -> tuple[SecretValue, ...]:
        """All current secrets; the same object until the material changes. Thread-safe."""
        material, (of, found) = self.material, self._secrets
        if of is not material:
            profiles = [*(held.profile for held in material.held.values()), *(hidden.profile for hidden in material.shadowed)]
            found = tuple(value for profile in profiles for value in (profile.secret, profile.refresh) if value is not None)
            self._secrets = (material, found)
        return found

    # -- changing ------------------------------------------------------------------------------------------------------

    def replace_material(self, material: Material) -> frozenset[Key]:
        """Replaces the material. Returns the changed profiles after the listeners were notified."""
        before, self.material = self.material, material
        adopted = self.usage_in_stores(material)
        for key, usage in adopted.items():
            self._remember(key, usage)
        keys = frozenset(changed(before, material))
        gone = {key for key in keys if key not in material.held}
        for key in gone:
            self._drop(key)
        for key in (keys | adopted.keys()) - gone:
            self._forget_other_credential(key, before.held.get(key))
        self._reassess((keys | adopted.keys()) - gone, also=gone)
        if before.orders != material.orders:
            self.reordered()
        return keys

    def reordered(self) -> None:
        """Only the order of profiles has changed: listeners are notified with an empty set."""
        self.generation += 1
        notify(self.listeners, frozenset())

    def replace_usage(self, key: Key, usage: Usage) -> None:
        """Replaces the usage of the profile."""
        if not usage.rejected:
            self._trials.end_all(key[1])
        self._remember(key, usage)
        self._reassess([key])

    def replace_trouble(self, key: Key, trouble: RefreshTrouble | None) -> None:
        """Replaces the refresh trouble of a login. None removes it."""
        if trouble is None:
            self._troubles.pop(key, None)
        else:
            self._troubles[key] = trouble
        self._reassess([key])

    def replace_evidence(self, agent: str, key: Key, evidence: Evidence) -> None:
        """Replaces the agent's evidence about the shared profile. Only this agent's leases are notified."""
        self._evidence.put(agent, key[1], evidence, now=self._clock.now())
        if not evidence.usage.rejected:
            self._trials.end([(agent, key[1])])
        self._changes.add([(agent, key[1])])
        self._changed()

    def apply(self, *, warn_within: float) -> None:
        """Another configuration is in effect."""
        if warn_within != self._warn_within:
            self._warn_within = warn_within
            self._reassess(list(self._candidates))

    def clear(self, key: Key, *, version: int = 0) -> frozenset[str]:
        """Clears the usage and all evidence of a profile for an operator. Returns the obstacles that this removed.

        Does nothing if the profile does not have this `version` of its material; 0 means any version.
        """
        if version not in (0, self.material.held[key].version):
            return frozenset()
        now, met = self._clock.now(), [self.usage(key), *(own.usage for own in self.evidence(key).values())]
        ended = frozenset(word for usage in met for word in obstacles(usage, self.material.held[key].version, now=now))
        if not key[0]:
            self._changes.add(self._evidence.forget_all(key[1]))
        self.replace_usage(key, Usage(last_used=self.usage(key).last_used))
        self._changed()
        return ended

    def tried(self, agent: str, key: Key) -> None:
        """The agent gets the credential now. If it is a rejected one, this starts a trial, and the others wait for it."""
        if not self._as_seen_by(agent, key, self._candidates[key]).standing.trial:
            return
        now = self._clock.now()
        self._trials.begin(agent, key, now=now)
        # No listener is notified: the profile could not serve before, and still cannot.
        self._place(key, self.material.held[key], now)
        self.generation += 1

    def touch(self, key: Key) -> None:
        """Notes that the profile was used now. `flush_used` stores it."""
        self._used_at[key] = self._clock.now()

    def flush_used(self) -> None:
        """Stores the times of last use."""
        for key in list(self._used_at):
            if key in self._candidates:
                self._with_last_use(key)
            self._remember(key, self.usage(key))

    def tick(self) -> float:
        """Updates the profiles that are due. Returns when to call it again, in seconds since the epoch."""
        now = self._clock.now()
        if lapsed := self._evidence.lapse(now):
            self._trials.end(lapsed)
            self._changes.add(lapsed)
            self._changed()
        if due := self.deadlines.due(now):
            self._reassess(due)
        return min(self.deadlines.next(), self._evidence.next())

    def wall_moved(self, by: float) -> None:
        """The wall clock moved `by` seconds: every profile is assessed again. Cooldowns keep their remaining time."""
        now = self._clock.now()
        for key in list(self._usage):
            usage = self.usage(key)
            moved = shifted(usage, by, now=now)
            if moved != usage:
                self._remember(key, moved)
        self._evidence.shift(by, now=now)
        self._trials.clear()
        self.deadlines.clear()
        self._reassess(list(self._candidates))

    # -- within --------------------------------------------------------------------------------------------------------

    def _forget_other_credential(self, key: Key, before: HeldProfile | None) -> None:
        """Clears usage and evidence that belong to another credential (ADR 27).

        A refresh replaces the tokens of a login: for a login only another account means another credential.
        """
        held, usage = self.material.held.get(key), self.usage(key)
        if held is None:
            return
        if not usage.clean and not usage.version:
            self._remember(key, replace(usage, version=held.version))
        elif not usage.clean and _is_other(held, usage.version, before):
            self._remember(key, Usage(last_used=usage.last_used))
        if not key[0] and before is not None and _is_other(held, before.version, before):
            self._changes.add(self._evidence.forget_all(key[1]))

    def _remember(self, key: Key, usage: Usage) -> None:
        self._usage[key] = usage
        self._used_at.pop(key, None)
        self._store.put_usage(key, usage)
        notify(self.usage_listeners, key, usage)

    def _reassess(self, keys: Iterable[Key], *, also: Iterable[Key] = ()) -> None:
        now = self._clock.now()
        held = self.material.held
        self._changes.add([key for key in keys if key in held and self._place(key, held[key], now)])
        self._changes.add(also)
        if self._changes:
            self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self._changes.send()

    def _place(self, key: Key, held: HeldProfile, now: float) -> bool:
        """Assesses the profile. Returns whether it differs from before."""
        usage = self.usage(key)
        standing = self._assess(key, held, usage, now)
        before = self._candidates.get(key)
        if before is not None and before.held.profile.provider != held.profile.provider:
            self._unlist(key, before)
        self._candidates[key] = Candidate(held, standing, usage)
        self._by_provider.setdefault((key[0], held.profile.provider), set()).add(key)
        self.deadlines.plan(key, standing.valid_until)
        if before is None or before.standing.state is not standing.state:
            known = "" if before is None else before.standing.state.value
            self._announce(held, known, standing.state, standing.reason or held.profile.origin)
        return before is None or (before.held, before.standing) != (held, standing)

    def _assess(
        self, key: Key, held: HeldProfile, usage: Usage, now: float, *, trouble: RefreshTrouble | None = None, agent: str = ""
    ) -> Assessment:
        tried = self._trials.until(agent, key)
        trouble = trouble or self._troubles.get(key)
        return assess(held, usage, now=now, warn_within=self._warn_within, trouble=trouble, tried_until=tried)

    def _as_seen_by(self, agent: str, key: Key, candidate: Candidate) -> Candidate:
        """The profile for the agent. Usually it is the same object as for all agents."""
        evidence = None if key[0] else self._evidence.of(key[1]).get(agent)
        if evidence is None and not self._trials.has(agent, key[1]):
            return candidate
        held, usage, trouble = candidate.held, candidate.usage, self.trouble(key)
        if evidence is not None:
            usage = overlaid(usage, evidence, held.version)
        if evidence is not None and evidence.refused == held.version:
            trouble = replace(trouble or RefreshTrouble(version=held.version), refused=True)
        return Candidate(held, self._assess(key, held, usage, self._clock.now(), trouble=trouble, agent=agent), usage)

    def _with_last_use(self, key: Key) -> Candidate:
        candidate = self._candidates[key]
        if key in self._used_at:
            candidate = self._candidates[key] = replace(candidate, usage=self.usage(key))
        return candidate

    def _drop(self, key: Key) -> None:
        gone = self._candidates.pop(key)
        self._troubles.pop(key, None)
        self._trials.end_all(key[1])
        if not key[0]:
            self._changes.add(self._evidence.forget_all(key[1]))
        self._unlist(key, gone)
        self.deadlines.forget(key)
        self._announce(gone.held, gone.standing.state.value, State.MISSING, f"{gone.held.profile.source} no longer holds it")

    def _unlist(self, key: Key, candidate: Candidate) -> None:
        of_provider = (key[0], candidate.held.profile.provider)
        self._by_provider[of_provider].discard(key)
        if not self._by_provider[of_provider]:
            del self._by_provider[of_provider]

    def _announce(self, held: HeldProfile, before: str, after: State, reason: str) -> None:
        profile = held.profile
        self._events.emit(
            CredentialStateChanged(
                profile=profile.id, provider=profile.provider, before=before, after=after.value, reason=reason
            )
        )
