"""Probes of the broker: they show whether the credential caused an agent's failure, and whether it works again.

A probe is one small request. Probes of a profile are rare and never concurrent.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import AuditUnavailable
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.profiles import Profile
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.timing.clock import pause
from equabot_broker.ports import Clock, Probes
from equabot_broker.telemetry.credential_events import CredentialProbed
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.incidents import incident

_log = logging.getLogger("equabot.probes")

_APART: Final = 5.0
"""The shortest time in seconds between two probes of a profile. It doubles with each probe, and resets after an hour."""
_APART_MOST: Final = 300.0
_QUIET: Final = 3600.0
_PARALLEL: Final = 2
_LONGEST: Final = 60.0


@dataclass(slots=True)
class _Question:
    """A planned probe: the version of the profile, the outcome to verify, and the steady instant."""

    version: int
    asked: Outcome
    at: float


@dataclass(slots=True)
class _Pace:
    """The last probe of a profile (steady), and the seconds until the next one is allowed."""

    at: float
    apart: float = _APART


class Confirmation:
    """Sends probes. `listeners` get each result: the material, the outcome to verify, the result, and the time of the request
    (seconds since the epoch)."""

    def __init__(self, *, clock: Clock, events: Events, registry: ProfileRegistry, probes: Probes) -> None:
        self._clock = clock
        self._events = events
        self._registry = registry
        self._probes = probes
        self._questions: dict[Key, _Question] = {}
        self._paces: dict[Key, _Pace] = {}
        self._under_way: set[Key] = set()
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._sooner = asyncio.Event()
        self.listeners: list[Callable[[HeldProfile, Outcome, ProbeResult, float], None]] = []

    async def run(self) -> None:
        """Sends the probes that are due, forever."""
        async with asyncio.TaskGroup() as group:
            while True:
                now = self._clock.steady()
                for key in [
                    key for key, question in self._questions.items() if question.at <= now and key not in self._under_way
                ]:
                    self._under_way.add(key)
                    self._pace(key, now)
                    group.create_task(self._ask(key, self._questions.pop(key)), name=f"probe {key[1]}")
                self._sooner.clear()
                waits = (question.at - now for key, question in self._questions.items() if key not in self._under_way)
                await pause(self._clock, min(max(min(waits, default=_LONGEST), 0.001), _LONGEST), sooner=self._sooner)

    def ask(self, held: HeldProfile, asked: Outcome) -> bool:
        """Plans a probe to verify AUTH or BILLING. Returns False if there is no probe for that."""
        return self._plan((held.profile.agent, held.profile.id), held, asked, after=0.0)

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry. It plans a probe for each rejected credential at the end of its wait."""
        now = self._clock.now()
        for key in keys:
            held = self._registry.material.held.get(key)
            if held is None:
                self._questions.pop(key, None)
                self._paces.pop(key, None)
                continue
            usage = self._registry.remembered(key)
            if usage.rejected and usage.rejected_version == held.version and usage.rejected_until:
                self._plan(key, held, Outcome.AUTH, after=usage.rejected_until - now)

    def _plan(self, key: Key, held: HeldProfile, asked: Outcome, *, after: float) -> bool:
        if held.profile.secret is None or not self._possible(held.profile, asked):
            return False
        pace, now = self._paces.get(key), self._clock.steady()
        at = max(now + after, 0.0 if pace is None else pace.at + pace.apart)
        self._questions[key] = _Question(held.version, asked, at)
        self._sooner.set()
        return True

    def _possible(self, profile: Profile, asked: Outcome) -> bool:
        try:
            return self._probes.possible(profile, asked)
        except Exception as error:  # noqa: BLE001 - a port
            incident("probe", profile.id, error)
            return False

    async def _probe(self, profile: Profile, asked: Outcome) -> ProbeResult:
        try:
            return await self._probes.probe(profile, asked)
        except Exception as error:  # noqa: BLE001 - a port: the verdict is unknown
            return ProbeResult(Verdict.UNKNOWN, f"the probe failed: {incident('probe', profile.id, error)}")

    async def _ask(self, key: Key, question: _Question) -> None:
        try:
            async with self._slots:
                held = self._registry.material.held.get(key)
                if held is not None and held.version == question.version and self._is_open(key, question.asked):
                    await self._asked(key, held, question.asked)
        except Exception as error:  # noqa: BLE001 - a failure must not end the probes of other profiles
            incident("task", f"probe of {key[1]}", error)
        finally:
            self._under_way.discard(key)
            self._sooner.set()

    def _pace(self, key: Key, now: float) -> None:
        """Starts the wait for the next probe."""
        pace = self._paces.get(key)
        again = pace is not None and now - pace.at < _QUIET
        self._paces[key] = _Pace(now, min(pace.apart * 2, _APART_MOST) if again and pace is not None else _APART)

    def _is_open(self, key: Key, asked: Outcome) -> bool:
        """Whether the probe is still necessary."""
        met = any(evidence.outcome is asked for evidence in self._registry.evidence(key).values())
        usage = self._registry.remembered(key)
        return met or bool(usage.rejected) or (asked is Outcome.BILLING and asked.value in usage.failure_counts)

    async def _asked(self, key: Key, held: HeldProfile, asked: Outcome) -> None:
        profile = held.profile
        event = CredentialProbed(provider=profile.provider, profile=profile.id, agent=profile.agent, about=asked.value)
        with suppress(AuditUnavailable):
            self._events.emit(event)
            began = self._clock.now()
            found = await self._probe(profile, asked)
            _log.info("%s was probed (%s): %s", profile.id, asked.value, found.reason or found.verdict.value)
            self._questions.pop(key, None)  # this result also answers a probe that was planned during the request
            if self._registry.material.held.get(key) == held:
                for listener in self.listeners:
                    listener(held, asked, found, began)
            self.profiles_changed(frozenset({key}))
