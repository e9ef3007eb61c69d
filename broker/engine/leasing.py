"""Leases in motion: grant, renew, revoke, stream, report. Everything is decided synchronously, then stored, then told."""

import heapq
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from broker.domain.cooldowns import CooldownOptions, Outcome, failed, rejected, succeeded
from broker.domain.credentials import NEVER, left
from broker.domain.errors import (
    BrokerError,
    InvalidArgument,
    LeaseExpired,
    LeaseLimit,
    LeaseNotFound,
    NoUsableProfile,
    RateLimited,
    ShuttingDown,
)
from broker.domain.leases import Lease, LeaseOptions, check_ttl, grant, renew
from broker.domain.material import Held
from broker.domain.policies import AgentPolicy, Delivery, Policies
from broker.engine.choosing import Choosing
from broker.engine.grants import Grant, Request
from broker.engine.notifying import Mailbox, News
from broker.engine.standing import Key, Standings
from broker.engine.streaming import LeaseStream
from broker.ports import Clock, StateStore
from broker.telemetry.events import Events, LeaseDenied, LeaseGranted, LeaseRenewed, LeaseRevoked, OutcomeReported

_RENEW_AT: Final = 2 / 3
"""Where in its life a streamed lease is renewed."""


class Leasing:
    """All living leases. Revocation, expiry and failover reach open streams in the same turn of the loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        events: Events,
        policies: Policies,
        choosing: Choosing,
        standings: Standings,
        options: LeaseOptions,
        cooldowns: CooldownOptions,
        deliveries: frozenset[Delivery],
        leases: Sequence[Lease] = (),
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._policies = policies
        self._choosing = choosing
        self._standings = standings
        self._options = options
        self._cooldowns = cooldowns
        self._deliveries = deliveries
        self._leases: dict[str, Lease] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._on_profile: dict[Key, set[str]] = {}
        self._held_by: Counter[str] = Counter()
        self._agenda: list[tuple[float, str]] = []
        self._planned: dict[str, float] = {}
        self._allowances: dict[str, tuple[float, float]] = {}
        self.draining = False
        self.wake: Callable[[], None] = lambda: None
        for lease in leases:
            self._keep(lease)
        standings.listeners.append(self._profiles_changed)

    # -- what an agent may ask ---------------------------------------------------------------------------------------

    def acquire(self, agent: str, request: Request) -> Grant:
        """Resolves and grants.

        Raises InvalidArgument, ProviderUnknown, ProfileNotFound, NoUsableProfile, ReauthRequired, PolicyDenied,
        DeliveryNotAllowed, LeaseLimit, RateLimited, ShuttingDown.
        """
        return self._grant(agent, request, streaming=False)

    def stream(self, agent: str, request: Request) -> LeaseStream:
        """Grants a lease that lives as long as the returned stream is entered. Raises as `acquire` does."""
        granted = self._grant(agent, request, streaming=True)
        mailbox = self._mailboxes[granted.lease.id] = Mailbox()
        return LeaseStream(self, granted, mailbox)

    def renew(self, agent: str, lease_id: str, ttl: float | None = None) -> Grant:
        """Extends the lease from now. Raises LeaseNotFound, LeaseExpired, InvalidArgument, NoUsableProfile."""
        self._standings.tick()
        lease = self._of_agent(agent, lease_id)
        candidate = self._standings.find(agent, lease.profile)
        if candidate is None or not candidate[1].standing.usable:
            moved = self._rehome(lease)
            if moved is None:
                raise NoUsableProfile(f"profile {lease.profile!r} can no longer be used, and no other can take over")
            lease = moved
        return self._renewed(self._must_live(lease), ttl)

    def revoke(self, agent: str, lease_id: str) -> None:
        """Ends the lease. An unknown one, or another agent's, is not an error."""
        lease = self._leases.get(lease_id)
        if lease is not None and lease.agent == agent:
            self._end(lease, "revoked")

    def report(
        self, agent: str, lease_id: str, outcome: Outcome, *, retry_after: float | None = None, version: int = 0
    ) -> bool:
        """Takes note of a provider's answer. Returns whether the lease has newer material or another profile now.

        Raises LeaseNotFound.
        """
        lease = self._of_agent(agent, lease_id)
        found = self._standings.find(agent, lease.profile)
        if found is None:
            return False
        key, candidate = found
        if version and version != candidate.held.version:
            return True
        self._events.emit(OutcomeReported(agent=agent, provider=lease.provider, profile=lease.profile, outcome=outcome.value))
        self._note(key, candidate.held, outcome, retry_after)
        now = self._leases.get(lease_id)
        return now is not None and now.profile != lease.profile

    # -- what an operator may ask --------------------------------------------------------------------------------------

    def living(self, *, agent: str = "", provider: str = "", profile: str = "") -> Iterator[Lease]:
        """The living leases that match every given text, oldest first."""
        now = self._clock.steady()
        for lease in list(self._leases.values()):
            if (
                lease.expires_at > now
                and agent in ("", lease.agent)
                and provider in ("", lease.provider)
                and profile in ("", lease.profile)
            ):
                yield lease

    def revoke_matching(self, *, lease_id: str = "", agent: str = "", provider: str = "", profile: str = "") -> int:
        """Ends every lease that matches all the given texts, and says how many. Raises InvalidArgument given none."""
        if not (lease_id or agent or provider or profile):
            raise InvalidArgument("say which leases: by id, agent, provider or profile")
        matching = [
            lease for lease in self.living(agent=agent, provider=provider, profile=profile) if lease_id in ("", lease.id)
        ]
        for lease in matching:
            self._end(lease, "revoked")
        return len(matching)

    def drain(self) -> None:
        """Grants nothing more, and tells every stream to look for another broker. Unary leases stay for the next one."""
        self.draining = True
        for lease in [self._leases[lease_id] for lease_id in self._mailboxes]:
            self._end(lease, "shutting_down")

    def count(self) -> tuple[int, int]:
        """How many leases live, and how many of them are streams."""
        return len(self._leases), len(self._mailboxes)

    def offset(self) -> float:
        """What to add to a lease's steady instants to get wall-clock ones."""
        return self._clock.now() - self._clock.steady()

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Ends what is over and wakes the streams that are due. Returns the next steady instant at which to come again."""
        now = self._clock.steady()
        while self._agenda and self._agenda[0][0] <= now:
            at, lease_id = heapq.heappop(self._agenda)
            if self._planned.get(lease_id) != at:
                continue  # planned anew since, or ended
            lease = self._leases[lease_id]
            if lease.expires_at <= now:
                self._end(lease, "expired" if lease.renewable() else "max_ttl")
                continue
            self._plan(lease.expires_at, lease.id)
            if lease.streaming:
                self._mailboxes[lease.id].post(News.DUE)
        return self._agenda[0][0] if self._agenda else NEVER

    def wall_moved(self) -> None:
        """The wall clock jumped: leases last as long as before, but end at other instants. Streams are told, the store too."""
        for lease in self._leases.values():
            if lease.streaming:
                self._mailboxes[lease.id].post(News.RENEWED)
            else:
                self._store.put_lease(lease.id, lease)
        self._store.flush()

    # -- what an open stream may ask -----------------------------------------------------------------------------------

    def look(self, lease_id: str) -> Grant:
        """The lease as it is now. Raises LeaseNotFound."""
        lease = self._leases.get(lease_id)
        found = None if lease is None else self._standings.find(lease.agent, lease.profile)
        if lease is None or found is None:
            raise LeaseNotFound("the lease has ended")
        return self._with_material(lease, found[1].held)

    def extend(self, lease_id: str) -> Grant:
        """The lease, renewed for as long as first asked. Raises LeaseNotFound, LeaseExpired."""
        return self._renewed(self._must_live(self.look(lease_id).lease), None)

    def steady(self) -> float:
        """Now, as leases count it."""
        return self._clock.steady()

    # -- within --------------------------------------------------------------------------------------------------------

    def _grant(self, agent: str, request: Request, *, streaming: bool) -> Grant:
        try:
            return self._granted(agent, request, streaming=streaming)
        except BrokerError as error:
            provider = self._choosing.catalog.normalise(request.provider) or ""
            self._events.emit(LeaseDenied(agent=agent, provider=provider, reason=error.reason))
            raise

    def _granted(self, agent: str, request: Request, *, streaming: bool) -> Grant:
        if self.draining:
            raise ShuttingDown("the broker is shutting down: try again in a moment")
        policy = self._policies.of(agent)
        provider, profile = self._choosing.resolve_names(request.provider, request.profile)
        policy.check_provider(agent, provider)
        delivery = policy.choose_delivery(agent, request.delivery, available=self._deliveries)
        ttl = check_ttl(request.ttl, default=self._options.default_ttl)
        now = self._clock.steady()
        self._check_quota(agent, policy, now)
        choice = self._choosing.choose(agent, provider, profile=profile, session=request.session)
        held = choice.candidate.held
        lease = grant(
            secrets.token_hex(16),
            agent=agent,
            session=request.session,
            provider=provider,
            profile=held.profile.id,
            automatic=choice.automatic,
            delivery=delivery,
            ttl=ttl,
            max_ttl=min(policy.max_ttl, self._options.max_ttl),
            credential_left=left(held, now=self._clock.now()),
            now=now,
            streaming=streaming,
        )
        self._keep(lease)
        self._store_lease(lease)
        life = lease.expires_at - now
        self._events.emit(
            LeaseGranted(agent=agent, provider=provider, profile=lease.profile, delivery=delivery.value, seconds=life)
        )
        return self._with_material(lease, held)

    def _check_quota(self, agent: str, policy: AgentPolicy, now: float) -> None:
        if self._held_by[agent] >= policy.max_leases:
            self.tick()
            if self._held_by[agent] >= policy.max_leases:
                raise LeaseLimit(f"agent {agent!r} holds {policy.max_leases} leases already, its agents.{agent}.max_leases")
        if policy.rate is None:
            return
        tokens, since = self._allowances.get(agent, (float(policy.burst), now))
        tokens = min(float(policy.burst), tokens + (now - since) * policy.rate)
        if tokens < 1.0:
            wait = (1.0 - tokens) / policy.rate
            raise RateLimited(f"agent {agent!r} asks more often than agents.{agent}.rate allows", retry_after=wait)
        self._allowances[agent] = (tokens - 1.0, now)

    def _of_agent(self, agent: str, lease_id: str) -> Lease:
        lease = self._leases.get(lease_id)
        if lease is None or lease.agent != agent:
            raise LeaseNotFound("no such lease: it ended, or was never this agent's; acquire another")
        return lease

    def _must_live(self, lease: Lease) -> Lease:
        if lease.expires_at <= self._clock.steady():
            self._end(lease, "expired")
            raise LeaseExpired("the lease has expired: acquire another")
        return lease

    def _renewed(self, lease: Lease, ttl: float | None) -> Grant:
        found = self._standings.find(lease.agent, lease.profile)
        if found is None:
            raise LeaseNotFound("the lease's profile is gone: acquire another")
        held = found[1].held
        extended = renew(lease, ttl=ttl, credential_left=left(held, now=self._clock.now()), now=self._clock.steady())
        self._leases[lease.id] = extended
        self._store_lease(extended)
        self._plan_next(extended)
        self._events.emit(LeaseRenewed(agent=lease.agent, provider=lease.provider, profile=lease.profile))
        return self._with_material(extended, held)

    def _with_material(self, lease: Lease, held: Held) -> Grant:
        rest = left(held, now=self._clock.now())
        renewable = lease.renewable()
        if rest is not None:
            end = self._clock.steady() + rest
            renewable = renewable and end > lease.expires_at + 1.0
            if end < lease.expires_at:
                lease = replace(lease, expires_at=end)
        return Grant(lease, held, self._choosing.catalog.providers[lease.provider], self.offset(), renewable)

    def _profiles_changed(self, keys: frozenset[Key]) -> None:
        for key in keys:
            lease_ids = self._on_profile.get(key)
            if not lease_ids:
                continue
            found = self._standings.find(*key)
            now = self._clock.now()
            if found is not None and found[1].standing.usable and not found[1].standing.cooling_until > now:
                for lease_id in lease_ids & self._mailboxes.keys():
                    self._mailboxes[lease_id].post(News.ROTATED)
                continue
            self._choosing.forget_choices(key[1])
            for lease in [self._leases[lease_id] for lease_id in lease_ids]:
                self._rehome(lease)

    def _rehome(self, lease: Lease) -> Lease | None:
        """Moves a lease whose profile cannot serve (well) to the next one; ends it where there is none."""
        found = self._standings.find(lease.agent, lease.profile)
        usable = found is not None and found[1].standing.usable
        if not lease.automatic:
            return lease if usable else self._end(lease, "no_usable_profile")
        try:
            choice = self._choosing.choose(lease.agent, lease.provider, session=lease.session)
        except BrokerError:
            return lease if usable else self._end(lease, "no_usable_profile")
        if choice.candidate.id == lease.profile:
            return lease
        return self._move(lease, choice.candidate.held)

    def _move(self, lease: Lease, held: Held) -> Lease:
        self._forget(lease)
        rest = left(held, now=self._clock.now())
        until = lease.expires_at if rest is None else min(lease.expires_at, self._clock.steady() + rest)
        moved = replace(lease, profile=held.profile.id, expires_at=until)
        self._keep(moved)
        self._store_lease(moved)
        mailbox = self._mailboxes.get(lease.id)
        if mailbox is not None:
            mailbox.post(News.ROTATED)
        return moved

    def _note(self, key: Key, held: Held, outcome: Outcome, retry_after: float | None) -> None:
        usage = self._standings.usage(key)
        now = self._clock.now()
        if outcome is Outcome.OK:
            if usage.last_failure or usage.rejected:
                self._standings.replace_usage(key, succeeded(usage, now=now))
        elif outcome is Outcome.AUTH:
            why = "the provider refused it (401): replace the credential"
            self._standings.replace_usage(key, rejected(usage, why, version=held.version, now=now))
        else:
            self._standings.replace_usage(
                key,
                failed(usage, outcome, provider=held.profile.provider, now=now, options=self._cooldowns, retry_after=retry_after),
            )

    def _keep(self, lease: Lease) -> None:
        self._leases[lease.id] = lease
        self._held_by[lease.agent] += 1
        self._on_profile.setdefault(self._key(lease), set()).add(lease.id)
        self._plan_next(lease)

    def _forget(self, lease: Lease) -> None:
        del self._leases[lease.id]
        self._planned.pop(lease.id, None)
        self._held_by[lease.agent] -= 1
        for key in ((lease.agent, lease.profile), ("", lease.profile)):
            on_profile = self._on_profile.get(key)
            if on_profile is not None:
                on_profile.discard(lease.id)
                if not on_profile:
                    del self._on_profile[key]

    def _key(self, lease: Lease) -> Key:
        found = self._standings.find(lease.agent, lease.profile)
        return ("", lease.profile) if found is None else found[0]

    def _end(self, lease: Lease, reason: str) -> None:
        if lease.id not in self._leases:
            return
        self._forget(lease)
        if not lease.streaming:
            self._store.put_lease(lease.id, None)
            self._store.flush()
        mailbox = self._mailboxes.pop(lease.id, None)
        if mailbox is not None:
            mailbox.post(News.ENDED, reason)
        self._events.emit(
            LeaseRevoked(agent=lease.agent, provider=lease.provider, profile=lease.profile, reason=reason)
        )

    def _store_lease(self, lease: Lease) -> None:
        # A stream's lease ends with its connection, so a restart has nothing to remember of it.
        if not lease.streaming:
            self._store.put_lease(lease.id, lease)
            self._store.flush()

    def _plan_next(self, lease: Lease) -> None:
        now = self._clock.steady()
        at = now + (lease.expires_at - now) * _RENEW_AT if lease.streaming else lease.expires_at
        # A lease that only lives longer keeps its place: when that comes, it is planned anew.
        if lease.streaming or at < self._planned.get(lease.id, NEVER):
            self._plan(at, lease.id)

    def _plan(self, at: float, lease_id: str) -> None:
        sooner = not self._agenda or at < self._agenda[0][0]
        self._planned[lease_id] = at
        heapq.heappush(self._agenda, (at, lease_id))
        if len(self._agenda) > 2 * len(self._planned) + 1024:
            self._agenda = [(when, which) for which, when in self._planned.items()]
            heapq.heapify(self._agenda)
        if sooner:
            self.wake()
