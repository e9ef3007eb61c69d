"""What operators ask of leases: which there are, and to end them."""

from collections.abc import Iterator

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.leases import Lease
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.ports import Clock


class LeaseAdmin:
    """Lists and ends leases of every agent. A lease that ends reaches its stream in the same turn of the loop."""

    def __init__(self, *, clock: Clock, lease_table: LeaseTable) -> None:
        self._clock = clock
        self._lease_table = lease_table

    def living(self, *, agent: str = "", provider: str = "", profile: str = "") -> Iterator[Lease]:
        """The active leases that match every given text, oldest first."""
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
        self._lease_table.end_stored(matching, reason)
        return len(matching)

    def drain(self) -> None:
        """Grants nothing more, and ends every stream, so that its holder looks for another broker. Unary leases and tokens stay
        for the next process."""
        self._lease_table.close()
        streams = [lease for lease in self._lease_table.all() if lease.streaming]
        for lease in streams:
            if lease.brokered:
                self._lease_table.detach(lease.id, "shutting_down")
        self._lease_table.end_stored([lease for lease in streams if not lease.brokered], "shutting_down")

    def count(self) -> tuple[int, int]:
        """How many leases live, and how many of them are streams."""
        return self._lease_table.count()

    def offset(self) -> float:
        """What to add to a lease's steady instants to get wall-clock ones."""
        return self._lease_table.offset()
