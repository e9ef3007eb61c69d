"""Failover: moves a lease to the next profile if its own cannot serve, or is in cooldown.

A stream is moved or ended at once, because its holder is notified. Another lease keeps its profile until its holder asks: until
then the holder uses the credential that it got, and its reports must count for that profile. If the profile of a lease was
deleted and no other profile can replace it, the lease ends.
"""

from dataclasses import replace

from equabot_broker.domain.credentials import Revival, left
from equabot_broker.domain.errors import BrokerError, LeaseNotFound, RefreshFailed
from equabot_broker.domain.leases import Lease, renewal_due
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.selection import Candidate
from equabot_broker.engine.leases.mailboxes import LeaseChange
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.ports import Clock


class Failover:
    """Finds another profile for a lease."""

    def __init__(self, *, clock: Clock, resolver: Resolver, registry: ProfileRegistry, lease_table: LeaseTable) -> None:
        self._clock = clock
        self._resolver = resolver
        self._registry = registry
        self._lease_table = lease_table

    def home(self, lease: Lease) -> Candidate | None:
        """The lease's profile if a source holds it, usable or not."""
        found = self._registry.find(lease.agent, lease.profile)
        # If the profile belongs to another provider now, its secret must not go to the provider of this lease.
        return None if found is None or found[1].held.profile.provider != lease.provider else found[1]

    def look(self, lease: Lease) -> HeldProfile:
        """The material of the lease's profile. Raises LeaseNotFound if no source holds it."""
        home = self.home(lease)
        if home is None:
            raise LeaseNotFound(f"profile {lease.profile!r} does not exist any more: acquire another lease")
        return home.held

    def resolve(self, lease: Lease, *, model: str = "", client: str | None = None) -> Lease:
        """The lease on a profile that can serve: its own, or the next one unless the request named the profile.

        A profile in cooldown is used only if there is no other. `model` and `client` are those of the request if they differ
        from the lease. Raises like `Resolver.choose` if no profile can serve, and AuditUnavailable if the move could not be
        recorded.
        """
        home, model = self.home(lease), model or lease.model
        if lease.automatic and client is not None and client != lease.client:
            lease = replace(lease, client=client)
            self._lease_table.replace(lease)
        elif home is not None and self._stays(lease, home, model):
            return lease
        named = "" if lease.automatic else lease.profile
        try:
            choice = self._resolver.choose(
                lease.agent, lease.provider, profile=named, session=lease.session, model=model, client=lease.client
            )
            return self._move(lease, choice.candidate.held)
        except BrokerError:
            if home is not None and home.standing.usable:
                return lease
            raise

    def moved_on(self, agent: str, lease_id: str, *, profile: str, version: int, model: str = "") -> bool:
        """Whether the lease has newer material or another profile for the model now, after a failover if necessary.

        Raises RefreshFailed if that depends on a refresh.
        """
        lease = self._lease_table.get(lease_id)
        if lease is None or lease.agent != agent:
            return False
        home = self.home(lease)
        if lease.profile == profile and home is not None and home.held.version != version:
            return True
        try:
            return self.resolve(lease, model=model).profile != profile
        except RefreshFailed:
            raise
        except BrokerError:
            return False

    def _stays(self, lease: Lease, home: Candidate, model: str) -> bool:
        """Whether its own profile can serve it and is not in cooldown."""
        now = self._clock.now()
        if not home.standing.usable or home.for_model(model, now=now).standing.cooling_until > now:
            return False
        return not lease.automatic or self._resolver.suits(lease.agent, home, lease.client)

    def remind(self, lease: Lease, held: HeldProfile) -> None:
        """Plans when the stream renews the lease, or warns that its credential ends."""
        rest = None if lease.brokered else left(held, now=self._clock.now())
        self._lease_table.remind(lease.id, renewal_due(lease, credential_left=rest, now=self._clock.steady()))

    def _move(self, lease: Lease, held: HeldProfile) -> Lease:
        if held.profile.id == lease.profile:
            return lease
        rest = None if lease.moves else left(held, now=self._clock.now())
        until = lease.expires_at if rest is None else min(lease.expires_at, self._clock.steady() + rest)
        moved = replace(lease, profile=held.profile.id, expires_at=until)
        self._lease_table.replace(moved)
        return moved

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry: moves streams of these profiles, and ends unary leases of deleted profiles."""
        for agent, profile in keys:
            for lease in self._lease_table.streams(profile):
                if agent in ("", lease.agent):
                    self._move_stream(lease)
        if not self._registry.material.unread and any(self._registry.find(*key) is None for key in keys):
            for lease in self._lease_table.all():
                if not (lease.streaming or lease.brokered) and self._has_no_profile(lease):
                    self._lease_table.end(lease.id, "no_usable_profile")

    def _has_no_profile(self, lease: Lease) -> bool:
        """Whether no source holds the lease's profile and no other profile can replace it."""
        if self.home(lease) is not None:
            return False
        return not lease.automatic or self._resolver.plan(lease.agent, lease.provider).first() is None

    def _move_stream(self, lease: Lease) -> None:
        """Moves the stream to a profile that can serve, or ends it.

        A stream waits while its login is refreshed. A brokered lease stays without a profile: its token remains valid.
        """
        try:
            resolved = self.resolve(lease)
        except BrokerError as error:
            if lease.brokered:
                return
            home = self.home(lease)
            if isinstance(error, RefreshFailed) and home is not None and home.standing.revival is not Revival.NONE:
                return
            self._lease_table.end(lease.id, "no_usable_profile")
            return
        self.remind(resolved, self.look(resolved))
        self._lease_table.mailbox(lease.id).post(LeaseChange.ROTATED)
