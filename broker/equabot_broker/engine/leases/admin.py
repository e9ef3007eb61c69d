"""Operations on leases for operators: list and revoke."""

from collections.abc import Iterator

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.leases import Lease
from equabot_broker.engine.leases.table import LeaseTable
from equabot_broker.ports import Clock


class LeaseAdmin:
    """Lists and ends leases of all agents. The stream of an ended lease is notified in the same turn of the loop."""

    def __init__(self, *, clock: Clock, lease_table: LeaseTable) -> None:
        self._clock = clock
        self._lease_table = lease_table

    def active(self, *, agent: str = "", provider: str = "", profile: str = "") -> Iterator[Lease]:
        """The active leases that match all given texts, oldest first."""
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
        """Ends the leases that match all given texts, and returns their number. `reason` is a reason of the API.

        Raises InvalidArgument without any text.
        """
        if not (lease_id or agent or provider or profile):
            raise InvalidArgument("select leases by id, agent, provider or profile")
        active = self.active(agent=agent, provider=provider, profile=profile)
        matching = [lease for lease in active if lease_id in ("", lease.id)]
        self._lease_table.end_stored(matching, reason)
        return len(matching)

    def drain(self) -> None:
        """Grants no more leases, and ends all streams: their holders connect to the next broker.

        Unary leases and lease tokens stay valid in the next process.
        """
        self._lease_table.close()
        streams = [lease for lease in self._lease_table.all() if lease.streaming]
        for lease in streams:
            if lease.brokered:
                self._lease_table.detach(lease.id, "shutting_down")
        self._lease_table.end_stored([lease for lease in streams if not lease.brokered], "shutting_down")

    def count(self) -> tuple[int, int]:
        """The number of active leases, and the number of streams among them."""
        return self._lease_table.count()

    def offset(self) -> float:
        """The difference between wall-clock time and steady time, in seconds."""
        return self._lease_table.offset()
