"""Operations on leases for agents: acquire, stream, renew, report and revoke.

Each request is decided synchronously, then recorded, then stored, and then answered.
"""

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.credentials import left
from equabot_broker.domain.errors import BrokerError, LeaseNotFound, RefreshFailed
from equabot_broker.domain.leases import Lease, check_ttl, renew
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.grants import LeaseGrants
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.engine.leases.outcomes import Outcomes
from equabot_broker.engine.leases.quotas import Quotas
from equabot_broker.engine.leases.streams import LeaseStream, StreamLeases
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.table import LeaseTable, whose
from equabot_broker.engine.leases.terms import LeaseTerms
from equabot_broker.engine.leases.write_behind import WriteBehind
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.ports import Clock, StateStore
from equabot_broker.telemetry.events import Events
from equabot_broker.telemetry.lease_events import LeaseRenewed, OutcomeReported, RenewalDenied


class LeaseService:
    """The leases of all agents. Revocation, expiry and failover reach open streams in the same turn of the loop."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: StateStore,
        events: Events,
        terms: LeaseTerms,
        registry: ProfileRegistry,
        suspensions: Suspensions,
        lease_table: LeaseTable,
        failover: Failover,
        grants: LeaseGrants,
        streams: StreamLeases,
        outcomes: Outcomes,
        quotas: Quotas,
        write_behind: WriteBehind,
    ) -> None:
        self._clock = clock
        self._store = store
        self._events = events
        self._terms = terms
        self._registry = registry
        self._suspensions = suspensions
        self._lease_table = lease_table
        self._failover = failover
        self._grants = grants
        self._streams = streams
        self._outcomes = outcomes
        self._quotas = quotas
        self._write_behind = write_behind

    def acquire(self, agent: str, request: LeaseRequest, *, waits: bool = False) -> Grant:
        """Resolves and grants. The lease is stored within milliseconds.

        Raises InvalidArgument, ProviderUnknown, ProfileNotFound, NoUsableProfile, ReauthRequired, SourceNotSynced,
        PolicyDenied, DeliveryNotAllowed, AgentSuspended, LeaseLimit, RateLimited, AuditUnavailable, ShuttingDown. Raises
        RefreshFailed too: for a caller that `waits` and asks again, it is not recorded as a denial and uses no quota.
        """
        granted = self._grants.make(agent, request, streaming=False, waits=waits)
        self._write_behind.soon()
        return granted

    def stream(self, agent: str, request: LeaseRequest, *, waits: bool = False) -> LeaseStream:
        """Grants a lease that is active while the returned stream is entered. Raises like `acquire`."""
        granted = self._grants.make(agent, request, streaming=True, waits=waits)
        return self._streams.open(granted)

    def renew(self, agent: str, lease_id: str, ttl: float | None = None) -> Grant:
        """Extends the lease from now. If its own profile cannot serve, it moves to another unless the request named it.

        Raises AgentSuspended, LeaseNotFound, LeaseExpired, InvalidArgument. The lease stays active after NoUsableProfile,
        ProfileNotFound, ReauthRequired, RefreshFailed, SourceNotSynced, RateLimited, AuditUnavailable.
        """
        try:
            return self._renewed(agent, lease_id, ttl)
        except RefreshFailed:
            raise  # the caller asks again
        except BrokerError as error:
            self._events.emit(RenewalDenied(agent=agent, lease=lease_id, reason=error.reason))
            raise

    def _renewed(self, agent: str, lease_id: str, ttl: float | None) -> Grant:
        self._registry.tick()
        lease = self._lease_table.unexpired(self._of_agent(agent, lease_id))
        check_ttl(ttl, default=lease.asked)
        lease = self._failover.resolve(lease)
        held = self._failover.look(lease)
        rest = None if lease.moves else left(held, now=self._clock.now())
        renewed = renew(lease, ttl=ttl, credential_left=rest, now=self._clock.steady())
        self._quotas.spend_renewal(agent, self._terms.policy(agent), now=self._clock.steady())
        self._events.emit(LeaseRenewed(profile=lease.profile, **whose(lease)))
        self._grants.hand_out(renewed, held)
        self._lease_table.replace(renewed)
        self._store.flush()
        return self._grants.of(renewed, held)

    def revoke(self, agent: str, lease_id: str) -> bool:
        """Ends the lease, and returns whether it was active. An unknown lease, or that of another agent, is not an error."""
        lease = self._lease_table.get(lease_id)
        if lease is None or lease.agent != agent:
            return False
        lived = lease.expires_at > self._clock.steady()
        self._lease_table.end_stored([lease], "revoked")
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
        """Records the answer of a provider. Returns whether the lease has newer material or another profile now.

        A report about a brokered lease is not counted: the gateway has seen the answer itself. `model` is the model of the
        request if it differs from the lease. The request was sent `elapsed` seconds ago. `sure` is as in `Outcomes.note`.

        Raises AgentSuspended, LeaseNotFound. Raises RefreshFailed, after recording the answer, if the result depends on a
        refresh: ask `moved_on` after it.
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
                earliest=lease.issued_at + self._lease_table.offset(),
                sure=sure,
                model=model or lease.model,
                client=lease.client,
            )
        try:
            return self.moved_on(agent, lease_id, profile=lease.profile, version=version, model=model)
        finally:
            self._store.flush()

    def moved_on(self, agent: str, lease_id: str, *, profile: str, version: int, model: str = "") -> bool:
        """As `Failover.moved_on`."""
        return self._failover.moved_on(agent, lease_id, profile=profile, version=version, model=model)

    def look(self, lease_id: str) -> Grant:
        """The current lease of any agent. Raises LeaseNotFound, LeaseExpired."""
        return self._grants.look(lease_id)

    def steady(self) -> float:
        """The current steady instant in seconds."""
        return self._clock.steady()

    def _of_agent(self, agent: str, lease_id: str) -> Lease:
        self._suspensions.check(agent)
        lease = self._lease_table.get(lease_id)
        if lease is None or lease.agent != agent:
            raise LeaseNotFound("the lease does not exist: it has ended, or belongs to another agent; acquire another")
        return lease
