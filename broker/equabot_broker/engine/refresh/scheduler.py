"""Refreshes logins and workload identities before they expire, once for all agents.

A login is FRESH until its refresh is due. Then it is STALE: it still serves while it is refreshed in the background. When it is
EXPIRED, its callers wait for the refresh. Only this module decides when a refresh is repeated.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.credentials import NEVER, RefreshTrouble
from equabot_broker.domain.errors import RefreshFailed
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.relogin import how_to_log_in, login_command
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.refresh.forced_refreshes import ForcedRefreshes
from equabot_broker.engine.refresh.plans import FIRST_RETRY, RefreshPlan, RefreshPlans
from equabot_broker.engine.refresh.redemption import Redemption, RedemptionKind, RedemptionOutcome
from equabot_broker.engine.timing.clock import pause
from equabot_broker.oauth.refreshing import Blame, RefreshFailure
from equabot_broker.ports import Clock, Identities, StoreFault
from equabot_broker.telemetry.credential_events import LoginInvalidated, RefreshAttemptFailed, RefreshSucceeded
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.incidents import incident

T = TypeVar("T")

_log = logging.getLogger("equabot.refreshing")

_PARALLEL: Final = 4
_LONGEST: Final = 5.0
"""The longest wait of the loop in seconds: the wall clock may have been set."""
_DRAIN_WITHIN: Final = 35.0
_SEEN_WITHIN: Final = 0.3
"""Seconds in which a source that watches its files has seen a change."""
_ARRIVES_WITHIN: Final = 5.0
"""Seconds in which the source has read the new tokens from the store."""
_AT_ONCE_REFUSED: Final = 900.0
"""Seconds after a forced refresh in which another refusal shows that a refresh does not help."""


class RefreshScheduler:
    """Refreshes the logins of the broker, and exchanges the `identities` of workloads.

    `reread` makes the source with that name read again. `chance` returns numbers in [0, 1).
    """

    def __init__(
        self,
        *,
        clock: Clock,
        events: Events,
        registry: ProfileRegistry,
        redemption: Redemption,
        reread: Callable[[str], None],
        chance: Callable[[], float],
        identities: Identities | None = None,
    ) -> None:
        self._clock = clock
        self._events = events
        self._registry = registry
        self._redemption = redemption
        self._reread = reread
        self._chance = chance
        self._identities = identities
        self._plans = RefreshPlans(clock=clock, chance=chance)
        self._forced_refreshes = ForcedRefreshes(clock)
        self._refreshing: set[Key] = set()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._sooner = asyncio.Event()
        self._changed = asyncio.Event()
        self._draining = False

    def apply(self, identities: Identities | None) -> None:
        """Another configuration is in effect. Running refreshes continue."""
        self._identities = identities

    async def run(self) -> None:
        """Refreshes the logins that are due, forever."""
        async with asyncio.TaskGroup() as group:
            while True:
                for key in self._due():
                    self._refreshing.add(key)
                    group.create_task(self._refresh_due(key), name=f"refresh {key[1]}")
                delay = self._delay()
                self._sooner.clear()
                await pause(self._clock, delay, sooner=self._sooner)

    async def drain(self) -> None:
        """Starts no more refreshes, and waits until running ones have ended and their results are written.

        An interrupted refresh can end a login. The wait is limited by the timeout of a token endpoint.
        """
        self._draining = True
        end = self._clock.steady() + _DRAIN_WITHIN
        while self._is_under_way() and (left := end - self._clock.steady()) > 0:
            await pause(self._clock, left, sooner=self._changed)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(end - self._clock.steady(), 0.0)):
                await self._write_pending(end)
        for login in self._unwritten():
            _log.error(
                "the result of the last refresh of %s could not be written and is lost: if the provider refuses the login from"
                " now on, %s",
                login.id,
                how_to_log_in(login),
            )

    async def _write_pending(self, end: float) -> None:
        """Tries the pending writes of earlier refreshes again, until `end`."""
        for wait in delays(base=FIRST_RETRY, cap=_LONGEST, rng=self._chance):
            await self._redemption.write_pending()
            if not self._unwritten() or self._clock.steady() + wait > end:
                return
            await self._clock.sleep(wait)

    def _unwritten(self) -> list[Profile]:
        """The logins with a pending write, without deleted ones."""
        return [login for login in self._redemption.unwritten if (login.agent, login.id) in self._registry.material.held]

    def _is_under_way(self) -> bool:
        """Whether a refresh is running. An exchange does not count: its interruption costs nothing."""
        held = self._registry.material.held
        return any(key not in held or not held[key].profile.workload for key in self._refreshing)

    # -- for callers that need a refreshed login -----------------------------------------------------------------------

    async def ask_until_refreshed(self, ask: Callable[[], T], *, within: float) -> T:
        """Calls `ask` again after each refresh until it succeeds, and returns its result.

        Raises the last RefreshFailed after `within` seconds, or as soon as waiting cannot help, and what else `ask` raises.
        """
        end = self._clock.steady() + within
        while True:
            left = end - self._clock.steady()
            changed = self._changed
            try:
                return ask()
            except RefreshFailed as behind:
                if left <= (behind.retry_after or 0.0):
                    raise
            await pause(self._clock, left, sooner=changed)

    def force(self, key: Key, version: int, *, for_all: bool = True) -> bool:
        """Refreshes a login now, because the provider refused its access token of that version.

        `for_all`: until then the token serves no agent. Returns False if that token came from a recent forced refresh, if the
        last forced refresh is too recent, or if there is nothing to refresh.
        """
        plan = self._plans.get(key)
        if plan is None or plan.version != version or self._clock.steady() - plan.since < _AT_ONCE_REFUSED:
            return False
        if not plan.forced:
            if not self._forced_refreshes.begin(key):
                return False
            plan.forced, plan.at = True, -NEVER
            self._sooner.set()
        trouble = self._registry.trouble(key)
        if trouble is None or trouble.version != version:
            trouble = RefreshTrouble(version=version)
        if for_all and not trouble.refused:
            self._registry.replace_trouble(key, replace(trouble, refused=True))
        return True

    def proved(self, key: Key, version: int) -> None:
        """The provider accepted the login's access token of that version."""
        plan = self._plans.get(key)
        if plan is not None and plan.version == version:
            plan.since = -NEVER

    # -- when ----------------------------------------------------------------------------------------------------------

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry: plans the refreshes of the logins among these profiles."""
        for key in keys:
            held = self._registry.material.held.get(key)
            if held is None:
                self._forced_refreshes.forget(key)
            plan = self._plans.get(key)
            if held is None or self._is_over(held.profile):
                self._plans.drop(key)
            elif plan is None or plan.version != held.version:
                if plan is not None and plan.forced:
                    self._forced_refreshes.ended(key)
                self._plans.make(key, held)
                self._sooner.set()
        self._notify()

    def _is_over(self, profile: Profile) -> bool:
        """Whether the login needs no refresh any more. A login with a pending write has not ended, whatever the store says."""
        return not profile.renews or (bool(profile.reauth) and not self._redemption.is_unwritten(profile))

    def _due(self) -> list[Key]:
        return [] if self._draining else self._plans.due(under_way=self._refreshing)

    def _delay(self) -> float:
        wait = _LONGEST if self._draining else self._plans.wait(under_way=self._refreshing)
        return min(max(wait, 0.001), _LONGEST)

    # -- one refresh ---------------------------------------------------------------------------------------------------

    async def _refresh_due(self, key: Key) -> None:
        try:
            # One refresh at a time in a store: each wait for the lock of the store would occupy a thread.
            async with self._lock(key), self._slots:
                plan, held = self._plans.get(key), self._registry.material.held.get(key)
                if held is None or self._is_over(held.profile):
                    self._plans.drop(key)
                elif plan is not None and not self._draining:
                    await self._refresh(key, held, plan)
        except Exception as error:  # noqa: BLE001 - a failure must not end the refreshes of other logins
            incident("task", f"refresh of {key[1]}", error)
            if (failed := self._plans.get(key)) is not None:
                failed.not_before = self._clock.steady() + next(failed.waits)
        finally:
            self._refreshing.discard(key)
            self._sooner.set()
            self._notify()

    def _lock(self, key: Key) -> asyncio.Lock:
        held = self._registry.material.held.get(key)
        store = (held.profile.source, held.profile.unit) if held is not None else ("", "")
        return self._locks.setdefault(store, asyncio.Lock())

    async def _refresh(self, key: Key, held: HeldProfile, plan: RefreshPlan) -> None:
        began = self._clock.steady()
        try:
            outcome = await self._renew(held.profile, forced=plan.forced)
        except StoreFault as fault:
            outcome = RedemptionOutcome(RedemptionKind.FAILED, RefreshFailure(Blame.TRANSIENT, "store", str(fault)))
        except Exception as error:  # noqa: BLE001 - a port: it is repeated, and the marks show what was sent
            unforeseen = incident("token_endpoint", held.profile.id, error)
            outcome = RedemptionOutcome(
                RedemptionKind.FAILED, RefreshFailure(Blame.TRANSIENT, "unexpected", f"it cannot be refreshed: {unforeseen}")
            )
        if outcome.kind is RedemptionKind.HELD:
            self._reread(held.profile.source)
            plan.not_before = self._clock.steady() + next(plan.waits)
            if not plan.forced and held.profile.expires_at is not None:
                plan.at = held.profile.expires_at
            return
        if outcome.kind is RedemptionKind.FAILED and outcome.failure is not None:
            self._failed(key, held, plan, outcome.failure)
            return
        self._ended(held, outcome, self._clock.steady() - began)
        if not await self._arrived(key, held):
            gone = outcome.kind is RedemptionKind.GONE
            why = "no store has the login" if gone else "its source has not read the new tokens from the store yet"
            self._failed(key, held, plan, RefreshFailure(Blame.TRANSIENT, "store", why))

    async def _renew(self, profile: Profile, *, forced: bool) -> RedemptionOutcome:
        if not profile.workload or self._identities is None:
            return await self._redemption.redeem(profile, forced=forced)
        failure = await self._identities.exchange(profile.id)
        return (
            RedemptionOutcome(RedemptionKind.REFRESHED)
            if failure is None
            else RedemptionOutcome(RedemptionKind.FAILED, failure)
        )

    def _ended(self, held: HeldProfile, outcome: RedemptionOutcome, seconds: float) -> None:
        profile = held.profile
        if outcome.kind in (RedemptionKind.REFRESHED, RedemptionKind.ADOPTED):
            adopted = outcome.kind is RedemptionKind.ADOPTED
            self._events.emit(
                RefreshSucceeded(
                    profile=profile.id, provider=profile.provider, adopted=adopted, seconds=seconds, agent=profile.agent
                )
            )
        elif outcome.failure is not None:
            command = login_command(profile.id, profile.agent)
            self._events.emit(
                LoginInvalidated(
                    profile=profile.id,
                    provider=profile.provider,
                    reason=outcome.failure.reason,
                    command=command,
                    agent=profile.agent,
                )
            )

    def _failed(self, key: Key, held: HeldProfile, plan: RefreshPlan, failure: RefreshFailure) -> None:
        wait = next(plan.waits) if failure.retry_after is None else max(failure.retry_after, FIRST_RETRY)
        plan.not_before = self._clock.steady() + wait
        profile, now = held.profile, self._clock.now()
        if failure.blame is Blame.UNCERTAIN and not plan.forced and profile.expires_at is not None:
            plan.at = max(profile.expires_at, plan.at)
        trouble = self._registry.trouble(key)
        if trouble is None or trouble.version != held.version:
            trouble = RefreshTrouble(version=held.version)
        wait = max(wait, plan.at - now)
        self._registry.replace_trouble(key, replace(trouble, failure=failure.reason, next_try=now + wait))
        self._events.emit(
            RefreshAttemptFailed(
                profile=profile.id,
                provider=profile.provider,
                outcome=failure.blame.value,
                reason=failure.reason,
                retry_in=wait,
                agent=profile.agent,
            )
        )

    async def _arrived(self, key: Key, before: HeldProfile) -> bool:
        """Whether the source has delivered the new content of the store.

        If the source does not see the change itself, this makes it read everything again.
        """
        if await self._came(key, before, within=_SEEN_WITHIN):
            return True
        self._reread(before.profile.source)
        return await self._came(key, before, within=_ARRIVES_WITHIN)

    async def _came(self, key: Key, before: HeldProfile, *, within: float) -> bool:
        end = self._clock.steady() + within
        while self._registry.material.held.get(key) == before:
            left = end - self._clock.steady()
            if left <= 0:
                return False
            await pause(self._clock, left, sooner=self._changed)
        return True

    # -- waiting -------------------------------------------------------------------------------------------------------

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
