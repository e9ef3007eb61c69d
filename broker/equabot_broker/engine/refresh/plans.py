"""Plans the time of the next refresh of each login."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.credentials import NEVER
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile
from equabot_broker.engine.profiles.registry import Key
from equabot_broker.oauth.refreshing import refresh_at
from equabot_broker.ports import Clock

_log = logging.getLogger("equabot.refreshing")

FIRST_RETRY: Final = 2.0
"""Seconds until the first retry of a refresh that failed."""
_LAST_RETRY: Final = 300.0
_CLOCKS_APART: Final = 30.0
"""Seconds by which the clock of another machine may be ahead without a warning."""


@dataclass(slots=True)
class RefreshPlan:
    """The next refresh of a version of a login: `at` on the wall clock, but not before a steady instant.

    `since` is the steady instant of the forced refresh that delivered this version.
    """

    version: int
    at: float
    waits: Iterator[float]
    not_before: float = 0.0
    forced: bool = False
    since: float = field(default=-NEVER)


class RefreshPlans:
    """One plan for each login. `chance` returns numbers in [0, 1)."""

    def __init__(self, *, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._plans: dict[Key, RefreshPlan] = {}

    def get(self, key: Key) -> RefreshPlan | None:
        """The plan of the login, or None."""
        return self._plans.get(key)

    def drop(self, key: Key) -> None:
        """Removes the plan of the login."""
        self._plans.pop(key, None)

    def make(self, key: Key, held: HeldProfile) -> None:
        """Plans the refresh of the current version. It replaces the plan of another version."""
        profile, before = held.profile, self._plans.get(key)
        self._check_clocks(profile)
        at = NEVER
        if profile.secret is None:
            at = -NEVER
        elif profile.expires_at is not None:
            at = refresh_at(issued_at=profile.issued_at, expires_at=profile.expires_at, chance=self._chance())
        since = self._clock.steady() if before is not None and before.forced else -NEVER
        waits = delays(base=FIRST_RETRY, cap=_LAST_RETRY, rng=self._chance)
        self._plans[key] = RefreshPlan(held.version, at, waits, since=since)

    def due(self, *, under_way: Collection[Key]) -> list[Key]:
        """The logins that are due, without those whose refresh is in progress."""
        now, steady = self._clock.now(), self._clock.steady()
        return [key for key, plan in self._others(under_way) if plan.at <= now and plan.not_before <= steady]

    def wait(self, *, under_way: Collection[Key]) -> float:
        """Seconds until the next login is due, or NEVER."""
        now, steady = self._clock.now(), self._clock.steady()
        waits = (max(plan.at - now, plan.not_before - steady) for _, plan in self._others(under_way))
        return min(waits, default=NEVER)

    def _others(self, under_way: Collection[Key]) -> Iterable[tuple[Key, RefreshPlan]]:
        return ((key, plan) for key, plan in self._plans.items() if key not in under_way)

    def _check_clocks(self, profile: Profile) -> None:
        ahead = (profile.issued_at or 0.0) - self._clock.now()
        if ahead > _CLOCKS_APART:
            _log.warning(
                "%s was refreshed %.0f s in the future: the clock of this machine is behind that of another one; let both use"
                " a time server, otherwise logins are refreshed too late or too early",
                profile.id,
                ahead,
            )
