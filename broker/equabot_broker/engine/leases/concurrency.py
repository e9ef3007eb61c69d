"""How many requests each agent has under way through the gateway. Envoy knows connections, and in a pod all agents have
one address; the broker knows whose each request is.

A request ends with its entry in Envoy's log. An entry can be lost: Envoy dies, or breaks off a check as it is answered. So all
are forgotten once no Envoy is connected, and each after an hour.
"""

from typing import Final

from equabot_broker.domain.errors import RateLimited

_COUNTS_FOR: Final = 3600.0
_AGAIN_AFTER: Final = 1.0


class Concurrency:
    """The instant at which each request began (steady, in seconds), by agent and name."""

    def __init__(self) -> None:
        self._under_way: dict[str, dict[str, float]] = {}

    def begin(self, agent: str, request: str, *, most: int, now: float) -> None:
        """One more of the agent, or the same again. Raises RateLimited where it has `most` already."""
        under_way = self._under_way.setdefault(agent, {})
        if request in under_way:
            return
        if len(under_way) >= most:
            under_way = {name: began for name, began in under_way.items() if now - began < _COUNTS_FOR}
            self._under_way[agent] = under_way
        if len(under_way) >= most:
            raise RateLimited(
                f"agent {agent!r} has {most} requests under way already (agents.{agent}.max_requests):"
                " try again once one has ended",
                retry_after=_AGAIN_AFTER,
            )
        under_way[request] = now

    def end(self, agent: str, request: str) -> None:
        """It is over, or was never made. Does nothing where it is not known."""
        self._under_way.get(agent, {}).pop(request, None)

    def forget(self) -> None:
        """Forgets all requests: none is under way any more."""
        self._under_way.clear()

    def of(self, agent: str) -> int:
        """How many it has."""
        return len(self._under_way.get(agent, ()))
