"""Grants: turns requests into leases, and combines a lease with its material."""

import secrets
from dataclasses import replace
from typing import Final

from equabot_broker.domain import lease_tokens
from equabot_broker.domain.credentials import left
from equabot_broker.domain.errors import BrokerError, RefreshFailed
from equabot_broker.domain.leases import Lease, check_ttl, grant
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.leases.quotas import Quotas
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.table import LeaseTable, whose
from equabot_broker.engine.leases.terms import LeaseTerms, is_gateway_absent
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.ports import Clock
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.lease_events import LeaseDenied, LeaseGranted

_WORTH_ASKING: Final = 1.0
"""A lease is renewable if a renewal extends it by at least this time in seconds."""


class LeaseGrants:
    """Makes leases in the lease table. The caller stores them."""

    def __init__(
        self,
        *,
        clock: Clock,
        events: Events,
        terms: LeaseTerms,
        resolver: Resolver,
        registry: ProfileRegistry,
        suspensions: Suspensions,
        lease_table: LeaseTable,
        failover: Failover,
        quotas: Quotas,
    ) -> None:
        self._clock = clock
        self._events = events
        self._terms = terms
        self._resolver = resolver
        self._registry = registry
        self._suspensions = suspensions
        self._lease_table = lease_table
        self._failover = failover
        self._quotas = quotas

    def make(self, agent: str, request: LeaseRequest, *, streaming: bool, waits: bool) -> Grant:
        """Resolves and grants. Raises like `LeaseService.acquire`."""
        left_before = self._quotas.left(agent)
        try:
            return self._granted(agent, request, streaming=streaming, waits=waits)
        except BrokerError as error:
            if waits and isinstance(error, RefreshFailed):
                self._quotas.restore(agent, left_before)
                raise
            if is_gateway_absent(error):  # not a denial: `exec` asks for a token first, and for a key if no gateway runs
                raise
            provider = self._resolver.catalog.normalise(request.provider) or ""
            session = request.session if provider else ""
            denied = LeaseDenied(agent=agent, provider=provider, reason=error.reason, session=session)
            self._events.emit(denied)
            raise

    def look(self, lease_id: str) -> Grant:
        """The current lease with its material. Raises LeaseNotFound, LeaseExpired."""
        lease = self._lease_table.active(lease_id)
        return self.of(lease, self._failover.look(lease))

    def of(self, lease: Lease, held: HeldProfile) -> Grant:
        """The lease with its material for its holder: a raw lease ends with its credential at the latest."""
        rest = None if lease.brokered else left(held, now=self._clock.now())
        renewable = lease.renewable()
        if rest is not None:
            end = self._clock.steady() + rest
            renewable = renewable and end > lease.expires_at + _WORTH_ASKING
            if end < lease.expires_at:
                lease = replace(lease, expires_at=end)
        provider, token = self._resolver.catalog.providers[lease.provider], self._lease_table.token(lease.id)
        return Grant(lease, held, provider, self._lease_table.offset(), renewable, token)

    def hand_out(self, lease: Lease, held: HeldProfile) -> None:
        """Starts a trial for a raw lease on a rejected credential. For a brokered lease the next request starts it."""
        if not lease.brokered:
            self._registry.tried(lease.agent, (held.profile.agent, held.profile.id))

    def _granted(self, agent: str, request: LeaseRequest, *, streaming: bool, waits: bool) -> Grant:
        self._suspensions.check(agent)
        self._lease_table.check_open()
        self._registry.tick()
        policy = self._terms.policy(agent)
        provider, profile = self._resolver.resolve_names(request.provider, request.profile)
        policy.check_provider(agent, provider)
        self._terms.check_gateway(request.delivery)
        delivery = self._terms.delivery(agent, provider, request.delivery)
        ttl = check_ttl(request.ttl, default=self._terms.default_ttl)
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
            _lease_id(wall),
            agent=agent,
            session=request.session,
            provider=provider,
            profile=held.profile.id,
            automatic=choice.automatic,
            delivery=delivery,
            ttl=ttl,
            max_ttl=self._terms.longest(agent),
            # A stream or a token outlives its credential: it moves to the next one.
            credential_left=None if streaming or token.digest else left(held, now=wall),
            now=now,
            streaming=streaming,
            token=token.digest,
            model=request.model,
            holder=request.holder,
            client=client,
        )
        granted = self.of(lease, held)
        life = granted.lease.expires_at - now
        self._events.emit(LeaseGranted(profile=lease.profile, delivery=delivery.value, seconds=life, **whose(lease)))
        self.hand_out(lease, held)
        self._lease_table.keep(lease, token.secret)
        if before is not None:
            self._lease_table.end(before.id, "succeeded")
        return replace(granted, token=token.secret, notice=choice.notice)

    def _predecessor(self, agent: str, provider: str, request: LeaseRequest) -> Lease | None:
        """The lease of the same agent and provider whose token the new lease keeps, or None."""
        before = self._lease_table.get(request.succeeds)
        same = before is not None and before.brokered and (before.agent, before.provider) == (agent, provider)
        return before if same else self._lease_table.held_as((agent, provider, request.holder))

    def _token(self, before: Lease | None) -> lease_tokens.Token:
        if before is not None:
            return lease_tokens.Token(before.token, self._lease_table.token(before.id))
        return lease_tokens.made(secrets.token_bytes(lease_tokens.BITS // 8))


def _lease_id(now: float) -> str:
    """Ids grow with time, so that inserts go to the end of the table: each random id would touch another page."""
    return f"{int(now * 1000):012x}{secrets.token_hex(10)}"
