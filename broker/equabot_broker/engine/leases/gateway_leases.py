"""Leases for the gateway: finds the lease of a token, and the profile that serves it now."""

from equabot_broker.domain.errors import LeaseNotFound
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.material import HeldProfile
from equabot_broker.engine.leases.failover import Failover
from equabot_broker.engine.leases.suspensions import Suspensions
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.engine.leases.write_behind import WriteBehind
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver


class GatewayLeases:
    """Leases by the digest of their token."""

    def __init__(
        self,
        *,
        resolver: Resolver,
        registry: ProfileRegistry,
        suspensions: Suspensions,
        lease_table: LeaseTable,
        failover: Failover,
        write_behind: WriteBehind,
    ) -> None:
        self._resolver = resolver
        self._registry = registry
        self._suspensions = suspensions
        self._lease_table = lease_table
        self._failover = failover
        self._write_behind = write_behind

    def bearer(self, token: bytes) -> Lease:
        """The active lease whose token has this digest. Raises AgentSuspended, LeaseNotFound, LeaseExpired, ShuttingDown."""
        lease = self._lease_table.by_token(token)
        if lease is None:
            self._suspensions.check_token(token)
            self._lease_table.check_open()
            raise LeaseNotFound(
                "the lease token does not belong to a lease: the lease was revoked, has expired or did not exist;"
                " acquire another"
            )
        self._suspensions.check(lease.agent)
        return self._lease_table.unexpired(lease)

    def resolve(self, lease: Lease, *, model: str = "", client: str = "") -> tuple[Lease, HeldProfile]:
        """The lease on a profile that can serve now, and its material.

        `model` is the model of the request if it differs from the lease. `client` is the client program, or empty.

        Raises NoUsableProfile, ProfileNotFound, ReauthRequired, RefreshFailed, SourceNotSynced, PolicyDenied,
        AuditUnavailable.
        """
        self._registry.tick()
        resolved = self._failover.resolve(lease, model=model, client=client)
        if resolved is not lease:
            self._write_behind.soon()
        held = self._failover.look(resolved)
        self._registry.touch((held.profile.agent, held.profile.id))
        self._registry.tried(resolved.agent, (held.profile.agent, held.profile.id))
        return resolved, held

    def has_another(self, token: bytes, *, profile: str, model: str = "") -> bool:
        """Whether another profile could serve the next request with the token."""
        lease = self._lease_table.by_token(token)
        if lease is None or not lease.automatic:
            return False
        return self._resolver.has_another(
            lease.agent, lease.provider, than=profile, session=lease.session, model=model or lease.model, client=lease.client
        )
