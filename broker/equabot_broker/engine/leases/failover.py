"""Failover: a lease whose profile cannot serve (well) is moved to the next one.

Streams are moved, or ended, at once, because their holder is notified. Any other lease keeps its profile until its holder asks:
until then the holder works with what it was given, and what it reports about that must not count against another profile. A
lease ends whose profile was deleted and which no other profile can take.
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
    """Finds leases another profile when theirs changes."""

    def __init__(self, *, clock: Clock, resolver: Resolver, registry: ProfileRegistry, lease_table: LeaseTable) -> None:
        self._clock = clock
        self._resolver = resolver
        self._registry = registry
        self._lease_table = lease_table

    def home(self, lease: Lease) -> Candidate | None:
        """The lease's profile, if a source holds it; serving or not."""
        found = self._registry.find(lease.agent, lease.profile)
        # A profile may have become one of another provider, whose secret must not go where this lease's requests go.
        return None if found is None or found[1].held.profile.provider != lease.provider else found[1]

    def look(self, lease: Lease) -> HeldProfile:
        """What the lease's profile holds. Raises LeaseNotFound where no source holds it."""
        home = self.home(lease)
        if home is None:
            raise LeaseNotFound(f"profile {lease.profile!r} is gone: acquire another lease")
        return home.held

    def resolve(self, lease: Lease, *, model: str = "", client: str | None = None) -> Lease:
        """The lease on a profile that can serve: its own; else, unless the request named it, the next. One in cooldown only
        where no other would do. `model` is the one to be asked, and `client` the program that asks, where they are not the
        lease's.

        Raises as `Resolver.choose` does where no profile can serve, so RefreshFailed where one can after a refresh; and
        AuditUnavailable where it could not be recorded.
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
        """Whether the lease has another version of the profile's material now, or another profile, or could be given one, for
        requests for the model.

        Raises RefreshFailed where that depends on a refresh.
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
        """Whether its own profile can serve it well."""
        now = self._clock.now()
        if not home.standing.usable or home.for_model(model, now=now).standing.cooling_until > now:
            return False
        return not lease.automatic or self._resolver.suits(lease.agent, home, lease.client)

    def remind(self, lease: Lease, held: HeldProfile) -> None:
        """Plans when the stream is to renew the lease, or to warn that its credential ends."""
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
        """A listener of the registry: moves the streams of these profiles, and ends unary leases of profiles that are gone."""
        for agent, profile in keys:
            for lease in self._lease_table.streams(profile):
                if agent in ("", lease.agent):
                    self._move_stream(lease)
        if not self._registry.material.unread and any(self._registry.find(*key) is None for key in keys):
            for lease in self._lease_table.all():
                if not (lease.streaming or lease.brokered) and self._has_no_profile(lease):
                    self._lease_table.end(lease.id, "no_usable_profile")

    def _has_no_profile(self, lease: Lease) -> bool:
        """Whether no source holds the lease's profile any more, and there is no other that it could be moved to."""
        if self.home(lease) is not None:
            return False
        return not lease.automatic or self._resolver.plan(lease.agent, lease.provider).first() is None

    def _move_stream(self, lease: Lease) -> None:
        """Finds the stream a profile that can serve, or ends it. One whose login is being refreshed waits for that; a token is
        not the credential's, and lives on while no profile serves."""
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
