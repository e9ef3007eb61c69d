"""Leases in motion: grant, renew, revoke, stream, report. Everything is decided synchronously, then stored, then told."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from equabot_broker.domain import lease_tokens
from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.credentials import left
from equabot_broker.domain.errors import (
    AuditUnavailable,
    BrokerError,
    DeliveryNotAllowed,
    InvalidArgument,
    LeaseExpired,
    LeaseNotFound,
    RefreshFailed,
    ShuttingDown,
)
from equabot_broker.domain.leases import Lease, LeaseOptions, check_ttl, grant, renew, renewal_due, shortened
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.policies import NO_GATEWAY, Delivery, Policies
from equabot_broker.domain.provider import Catalog
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.mailboxes import LeaseChange
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.leases.outcomes import Outcomes
from equabot_broker.engine.leases.quotas import Quotas
from equabot_broker.engine.leases.streams import LeaseStream
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.table import LeaseTable, whose
from equabot_broker.engine.leases.write_behind import WriteBehind
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.ports import Clock, StateStore
from equabot_broker.telemetry.events import (
    Events,
    LeaseDenied,
    LeaseGranted,
    LeaseRenewed,
    MaterialDelivered,
    OutcomeReported,
    RenewalDenied,
)

_LONGER: Final = 0.001
"""A renewal that gains less than this (seconds) gains nothing."""
_TRY_AGAIN_AFTER: Final = 1.0
_WORTH_ASKING: Final = 1.0
"""A lease that a renewal would extend by less than this (seconds) is not called renewable."""


class LeaseService:
    """All living leases. Revocation, expiry and failover reach open streams in the same turn of the loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        events: Events,
        policies: Policies,
        resolver: Resolver,
        registry: ProfileRegistry,
        lease_table: LeaseTable,
        failover: Failover,
        outcomes: Outcomes,
        options: LeaseOptions,
        deliveries: frozenset[Delivery],
        suspensions: Suspensions,
        leases: Sequence[Lease] = (),
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._policies = policies
        self._resolver = resolver
        self._registry = registry
        self._outcomes = outcomes
        self._options = options
        self._deliveries = deliveries
        self._suspensions = suspensions
        self._write_behind = WriteBehind(store)
        self._lease_table = lease_table
        self._failover = failover
        self._quotas = Quotas(lease_table)
        self.draining = False
        for lease in leases:
            self._lease_table.adopt(lease)
            if suspensions.of(lease.agent) is not None:
                self._lease_table.end(lease.id, "agent_suspended")
            else:
                self._hold_to_policy(lease)

    def apply(
        self, *, policies: Policies, options: LeaseOptions, deliveries: frozenset[Delivery], changed: frozenset[str]
    ) -> int:
        """The configuration is another: leases that it does not grant end, those that it grants for a shorter time end sooner,
        and all others stay. `resolver` has its part already. Streams on the `changed` providers are notified of their lease as
        it is now. Returns how many ended."""
        self._policies, self._options, self._deliveries = policies, options, deliveries
        ended = 0
        for lease in self._lease_table.all():
            kept = self._hold_to_policy(lease)
            ended += kept is None
            if kept is not None and kept.streaming and (kept is not lease or kept.provider in changed):
                if (home := self._failover.home(kept)) is not None:
                    self._failover.remind(kept, home.held)
                self._lease_table.mailbox(kept.id).post(LeaseChange.MOVED)
        self._store.flush()
        return ended

    def _hold_to_policy(self, lease: Lease) -> Lease | None:
        """The lease as far as its agent's policy grants it; None where that is not at all, so that it ended."""
        if not self._allowed(lease):
            self._lease_table.end(lease.id, "policy")
            return None
        longest = min(self._policies.of(lease.agent).max_ttl, self._options.max_ttl)
        held = shortened(lease, longest)
        if held.expires_at <= self._clock.steady():
            self._lease_table.end(lease.id, "max_ttl")
            return None
        if held is not lease:
            self._lease_table.replace(held)
        return held

    # -- what an agent may ask ---------------------------------------------------------------------------------------

    def acquire(self, agent: str, request: LeaseRequest, *, waits: bool = False) -> Grant:
        """Resolves and grants. The lease is stored within milliseconds.

        Raises InvalidArgument, ProviderUnknown, ProfileNotFound, NoUsableProfile, ReauthRequired, SourceNotSynced,
        PolicyDenied, DeliveryNotAllowed, AgentSuspended, LeaseLimit, RateLimited, AuditUnavailable, ShuttingDown; and
        RefreshFailed, which is no denial and spends nothing where the caller `waits` and asks again.
        """
        granted = self._grant(agent, request, streaming=False, waits=waits)
        self._write_behind.soon()
        return granted

    def stream(self, agent: str, request: LeaseRequest, *, waits: bool = False) -> LeaseStream:
        """Grants a lease that lives as long as the returned stream is entered. Raises as `acquire` does."""
        granted = self._grant(agent, request, streaming=True, waits=waits)
        self._failover.remind(granted.lease, granted.held)
        return LeaseStream(self, granted, self._lease_table.mailbox(granted.lease.id))

    def renew(self, agent: str, lease_id: str, ttl: float | None = None) -> Grant:
        """Extends the lease from now, on another profile where its own cannot serve and the request did not name it.

        Raises AgentSuspended, LeaseNotFound, LeaseExpired, InvalidArgument; and, the lease living on, NoUsableProfile,
        ProfileNotFound, ReauthRequired, RefreshFailed, SourceNotSynced, RateLimited, AuditUnavailable.
        """
        try:
            return self._renewed(agent, lease_id, ttl)
        except RefreshFailed:
            raise  # it is asked again
        except BrokerError as error:
            self._events.emit(RenewalDenied(agent=agent, lease=lease_id, reason=error.reason))
            raise

    def _renewed(self, agent: str, lease_id: str, ttl: float | None) -> Grant:
        self._registry.tick()
        lease = self._alive(self._of_agent(agent, lease_id))
        check_ttl(ttl, default=lease.asked)
        lease = self._failover.settle(lease)
        held = self._failover.look(lease)
        rest = None if lease.moves else left(held, now=self._clock.now())
        renewed = renew(lease, ttl=ttl, credential_left=rest, now=self._clock.steady())
        self._quotas.spend_renewal(agent, self._policies.of(agent), now=self._clock.steady())
        self._events.emit(LeaseRenewed(profile=lease.profile, **whose(lease)))
        self._hand_out(renewed, held)
        self._lease_table.replace(renewed)
        self._store.flush()
        return self._with_material(renewed, held)

    def revoke(self, agent: str, lease_id: str) -> bool:
        """Ends the lease, and returns whether it lived. An unknown one, or another agent's, is not an error."""
        lease = self._lease_table.get(lease_id)
        if lease is None or lease.agent != agent:
            return False
        lived = lease.expires_at > self._clock.steady()
        self._end([lease], "revoked")
        return lived

    def report(
        self,
        agent: str,
        lease_id: str,
        outcome: Outcome,
        *,
        retry_after: float | None = None,
        version: int = 0,
        model: str = "",
        elapsed: float | None = None,
        sure: bool = True,
    ) -> bool:
        """Takes note of a provider's answer. Returns whether the lease has newer material or another profile now. Of what went
        through the gateway it takes no note: that has been seen, and what the gateway refuses is no provider's answer.

        `model` is the one that was asked, where it is not the lease's; `elapsed` how many seconds ago; `sure` as in
        `Outcomes.note`.

        Raises AgentSuspended, LeaseNotFound; and RefreshFailed, after taking note, where that is still to be seen: ask
        `moved_on` then.
        """
        self._registry.tick()
        lease = self._of_agent(agent, lease_id)
        home = self._failover.home(lease)
        if home is not None:
            if version not in (0, home.held.version):
                return True
            version = home.held.version
        if home is not None and not lease.brokered:
            self._events.emit(OutcomeReported(profile=lease.profile, outcome=outcome.value, **whose(lease)))
            self._outcomes.note(
                home.held,
                outcome,
                agent=agent,
                retry_after=retry_after,
                began=None if elapsed is None else self._clock.now() - elapsed,
                earliest=lease.issued_at + self.offset(),
                sure=sure,
                model=model or lease.model,
                client=lease.client,
            )
        try:
            return self.moved_on(agent, lease_id, profile=lease.profile, version=version, model=model)
        finally:
            self._store.flush()

    def moved_on(self, agent: str, lease_id: str, *, profile: str, version: int, model: str = "") -> bool:
        """Whether the lease has another version of the profile's material now, or another profile, or could be given one, for
        requests for the model.

        Raises RefreshFailed where that depends on a refresh.
        """
        lease = self._lease_table.get(lease_id)
        if lease is None or lease.agent != agent:
            return False
        home = self._failover.home(lease)
        if lease.profile == profile and home is not None and home.held.version != version:
            return True
        try:
            return self._failover.settle(lease, model=model).profile != profile
        except RefreshFailed:
            raise
        except BrokerError:
            return False

    # -- what an operator may ask --------------------------------------------------------------------------------------

    def living(self, *, agent: str = "", provider: str = "", profile: str = "") -> Iterator[Lease]:
        """The living leases that match every given text, oldest first."""
        now = self._clock.steady()
        for lease in self._lease_table.all():
            if (
                lease.expires_at > now
                and agent in ("", lease.agent)
                and provider in ("", lease.provider)
                and profile in ("", lease.profile)
            ):
                yield lease

    def revoke_matching(
        self, *, lease_id: str = "", agent: str = "", provider: str = "", profile: str = "", reason: str = "revoked"
    ) -> int:
        """Ends every lease that matches all the given texts, for that reason of the wire, and returns how many. Raises
        InvalidArgument where no text is given."""
        if not (lease_id or agent or provider or profile):
            raise InvalidArgument("say which leases: by id, agent, provider or profile")
        living = self.living(agent=agent, provider=provider, profile=profile)
        matching = [lease for lease in living if lease_id in ("", lease.id)]
        self._end(matching, reason)
        return len(matching)

    def drain(self) -> None:
        """Grants nothing more, and tells every stream to look for another broker. Unary leases and tokens stay for the next."""
        self.draining = True
        streams = [lease for lease in self._lease_table.all() if lease.streaming]
        for lease in streams:
            if lease.brokered:
                self._lease_table.detach(lease.id, "shutting_down")
        self._end([lease for lease in streams if not lease.brokered], "shutting_down")

    def count(self) -> tuple[int, int]:
        """How many leases live, and how many of them are streams."""
        return self._lease_table.count()

    # -- time ----------------------------------------------------------------------------------------------------------

    def offset(self) -> float:
        """What to add to a lease's steady instants to get wall-clock ones."""
        return self._lease_table.offset()

    def steady(self) -> float:
        """Now, as leases count it."""
        return self._clock.steady()

    @property
    def catalog(self) -> Catalog:
        """The providers that there are leases of."""
        return self._resolver.catalog

    # -- what the gateway may ask --------------------------------------------------------------------------------------

    def bearer(self, token: bytes) -> Lease:
        """The living lease whose token has this digest. Raises AgentSuspended, LeaseNotFound, LeaseExpired, ShuttingDown."""
        lease = self._lease_table.by_token(token)
        if lease is None:
            self._suspensions.check_token(token)
            if self.draining:
                raise ShuttingDown("the broker is shutting down: try again in a moment")
            raise LeaseNotFound("the lease token is of no lease: it was revoked, has expired or never was; acquire another")
        self._suspensions.check(lease.agent)
        return self._alive(lease)

    def settle(self, lease: Lease, *, model: str = "", client: str = "") -> tuple[Lease, HeldProfile]:
        """The lease on a profile that can serve now, and what that holds. `model`: the one to be asked, where it is not the
        lease's; `client`: the program that asks, empty where that is not known.

        Raises NoUsableProfile, ProfileNotFound, ReauthRequired, RefreshFailed, SourceNotSynced, PolicyDenied,
        AuditUnavailable.
        """
        self._registry.tick()
        settled = self._failover.settle(lease, model=model, client=client)
        if settled is not lease:
            self._write_behind.soon()
        held = self._failover.look(settled)
        self._registry.touch((held.profile.agent, held.profile.id))
        self._registry.tried(settled.agent, (held.profile.agent, held.profile.id))
        return settled, held

    def has_another(self, token: bytes, *, profile: str, model: str = "") -> bool:
        """Whether the next request with the token could be served by another profile than this one."""
        lease = self._lease_table.by_token(token)
        if lease is None or not lease.automatic:
            return False
        return self._resolver.has_another(
            lease.agent, lease.provider, than=profile, session=lease.session, model=model or lease.model, client=lease.client
        )

    # -- what an open stream may ask -----------------------------------------------------------------------------------

    def look(self, lease_id: str) -> Grant:
        """The lease as it is now. Raises LeaseNotFound, LeaseExpired."""
        lease = self._living(lease_id)
        return self._with_material(lease, self._failover.look(lease))

    def extend(self, lease_id: str) -> Grant:
        """The lease, renewed for as long as first asked, if that is any longer.

        Raises LeaseNotFound, LeaseExpired, AuditUnavailable.
        """
        self._registry.tick()
        lease = self._living(lease_id)
        held = self._failover.look(lease)
        renewed = renew(lease, ttl=None, credential_left=None, now=self._clock.steady())
        if renewed.expires_at <= lease.expires_at + _LONGER:
            return self._with_material(lease, held)
        before, after = self._with_material(lease, held), self._with_material(renewed, held)
        longer = after.lease.expires_at > before.lease.expires_at + _LONGER
        if longer:
            self._record_renewal(lease, held)
        self._lease_table.replace(renewed)
        if longer:
            self._failover.remind(renewed, held)
        else:
            self._lease_table.remind(lease_id, renewal_due(renewed, credential_left=None, now=self._clock.steady()))
        return after

    def deliver(self, lease: Lease) -> None:
        """Records that new material of the lease's profile goes to its holder. Raises AuditUnavailable where it must not go
        unrecorded, with a new attempt planned."""
        try:
            self._events.emit(MaterialDelivered(profile=lease.profile, **whose(lease)))
        except AuditUnavailable as unavailable:
            self._lease_table.remind(lease.id, self._clock.steady() + (unavailable.retry_after or _TRY_AGAIN_AFTER))
            raise

    def close(self, lease_id: str) -> None:
        """The stream is gone: the lease ends, if it was the stream's still."""
        lease = self._lease_table.get(lease_id)
        if lease is not None and lease.streaming:
            self._end([lease], "revoked")

    # -- within --------------------------------------------------------------------------------------------------------

    def _record_renewal(self, lease: Lease, held: HeldProfile) -> None:
        """Raises AuditUnavailable, with a new attempt planned: a stream has nobody who would ask again."""
        try:
            self._events.emit(LeaseRenewed(profile=lease.profile, **whose(lease)))
        except AuditUnavailable:
            self._failover.remind(lease, held)
            raise

    def _grant(self, agent: str, request: LeaseRequest, *, streaming: bool, waits: bool) -> Grant:
        left_before = self._quotas.left(agent)
        try:
            return self._granted(agent, request, streaming=streaming, waits=waits)
        except BrokerError as error:
            if waits and isinstance(error, RefreshFailed):
                self._quotas.restore(agent, left_before)
                raise
            provider = self._resolver.catalog.normalise(request.provider) or ""
            session = request.session if provider else ""
            denied = LeaseDenied(agent=agent, provider=provider, reason=error.reason, session=session)
            self._events.emit(denied)
            raise

    def _granted(self, agent: str, request: LeaseRequest, *, streaming: bool, waits: bool) -> Grant:
        self._suspensions.check(agent)
        if self.draining:
            raise ShuttingDown("the broker is shutting down: try again in a moment")
        self._registry.tick()
        policy = self._policies.of(agent)
        provider, profile = self._resolver.resolve_names(request.provider, request.profile)
        policy.check_provider(agent, provider)
        if request.delivery == Delivery.BROKERED and Delivery.BROKERED not in self._deliveries:
            # Said before any policy is asked, so that a caller that takes either can take the other.
            raise DeliveryNotAllowed(f"delivery 'brokered' is not available: {NO_GATEWAY}", metadata={"cause": "no_gateway"})
        delivery = self.delivery(agent, provider, request.delivery)
        ttl = check_ttl(request.ttl, default=self._options.default_ttl)
        now = self._clock.steady()
        before = self._predecessor(agent, provider, request) if delivery is Delivery.BROKERED else None
        self._quotas.spend(agent, policy, now=now, freed=0 if before is None else 1)
        client = self._resolver.catalog.providers[provider].client(request.client)
        choice = self._resolver.choose(
            agent,
            provider,
            profile=profile,
            session=request.session,
            model=request.model,
            client=client,
            waits=waits,
        )
        held = choice.candidate.held
        wall = self._clock.now()
        token = self._token(before) if delivery is Delivery.BROKERED else lease_tokens.NONE
        lease = grant(
            # Ids that grow with time keep the store's tree growing at one end: a random one would touch a page of its own.
            f"{int(wall * 1000):012x}{secrets.token_hex(10)}",
            agent=agent,
            session=request.session,
            provider=provider,
            profile=held.profile.id,
            automatic=choice.automatic,
            delivery=delivery,
            ttl=ttl,
            max_ttl=min(policy.max_ttl, self._options.max_ttl),
            # A stream outlives its credential, and so does a token: they go over to the next one.
            credential_left=None if streaming or token.digest else left(held, now=wall),
            now=now,
            streaming=streaming,
            token=token.digest,
            model=request.model,
            holder=request.holder,
            client=client,
        )
        granted = self._with_material(lease, held)
        life = granted.lease.expires_at - now
        self._events.emit(LeaseGranted(profile=lease.profile, delivery=delivery.value, seconds=life, **whose(lease)))
        self._hand_out(lease, held)
        self._lease_table.keep(lease, token.secret)
        if before is not None:
            self._lease_table.end(before.id, "succeeded")
        return replace(granted, token=token.secret, notice=choice.notice)

    def delivery(self, agent: str, provider: str, asked: str = "") -> Delivery:
        """How a credential of the provider reaches the agent. Raises DeliveryNotAllowed, PolicyDenied."""
        unbrokered = self._unbrokered(provider)
        available = self._deliveries - {Delivery.BROKERED} if unbrokered else self._deliveries
        return self._policies.of(agent).choose_delivery(agent, asked, available=available, unbrokered=unbrokered)

    def _unbrokered(self, provider: str) -> str:
        """Why the provider has no brokered leases, with what to do; empty: it has."""
        if Delivery.BROKERED not in self._deliveries:
            return NO_GATEWAY
        return self._resolver.catalog.providers[provider].gateway_fault

    def _hand_out(self, lease: Lease, held: HeldProfile) -> None:
        """The holder of a raw lease may try a credential that was refused; with a token it is the next request that does."""
        if not lease.brokered:
            self._registry.tried(lease.agent, (held.profile.agent, held.profile.id))

    def _predecessor(self, agent: str, provider: str, request: LeaseRequest) -> Lease | None:
        """The lease whose token goes on, where there is one, the same agent's for the same provider."""
        before = self._lease_table.get(request.succeeds)
        same = before is not None and before.brokered and (before.agent, before.provider) == (agent, provider)
        return before if same else self._lease_table.held_as((agent, provider, request.holder))

    def _token(self, before: Lease | None) -> lease_tokens.Token:
        if before is not None:
            return lease_tokens.Token(before.token, self._lease_table.token(before.id))
        return lease_tokens.made(secrets.token_bytes(lease_tokens.BITS // 8))

    def _allowed(self, lease: Lease) -> bool:
        policy = self._policies.agents.get(lease.agent)
        known = lease.provider in self._resolver.catalog.providers
        if not known or policy is None or lease.delivery not in self._deliveries.intersection(policy.deliveries):
            return False
        if lease.brokered and self._unbrokered(lease.provider):
            return False
        return policy.allows_profile(lease.provider, lease.profile)

    def _living(self, lease_id: str) -> Lease:
        lease = self._lease_table.get(lease_id)
        if lease is None:
            raise LeaseNotFound("the lease has ended")
        return self._alive(lease)

    def _of_agent(self, agent: str, lease_id: str) -> Lease:
        self._suspensions.check(agent)
        lease = self._lease_table.get(lease_id)
        if lease is None or lease.agent != agent:
            raise LeaseNotFound("no such lease: it ended, or was never this agent's; acquire another")
        return lease

    def _alive(self, lease: Lease) -> Lease:
        if lease.expires_at <= self._clock.steady():
            self._end([lease], "expired" if lease.renewable() else "max_ttl")
            raise LeaseExpired("the lease has expired: acquire another")
        return lease

    def _end(self, leases: Iterable[Lease], reason: str) -> None:
        for lease in leases:
            self._lease_table.end(lease.id, reason)
        self._store.flush()

    def _with_material(self, lease: Lease, held: HeldProfile) -> Grant:
        rest = None if lease.brokered else left(held, now=self._clock.now())
        renewable = lease.renewable()
        if rest is not None:
            end = self._clock.steady() + rest
            renewable = renewable and end > lease.expires_at + _WORTH_ASKING
            if end < lease.expires_at:
                lease = replace(lease, expires_at=end)
        provider, token = self._resolver.catalog.providers[lease.provider], self._lease_table.token(lease.id)
        return Grant(lease, held, provider, self.offset(), renewable, token)
