"""Counts the concurrent requests of each agent through the gateway.

Envoy cannot do this: in a pod all agents have one address. A request ends with its entry in the log of Envoy. An entry can be
lost if Envoy dies, or cancels a check. All requests are therefore removed when no Envoy is connected, and each after an hour.
"""

from typing import Final

from equabot_broker.domain.errors import RateLimited

_COUNTS_FOR: Final = 3600.0
_AGAIN_AFTER: Final = 1.0


class Concurrency:
    """The start of each request (steady seconds), by agent and name."""

    def __init__(self) -> None:
        self._under_way: dict[str, dict[str, float]] = {}

    def begin(self, agent: str, request: str, *, most: int, now: float) -> None:
        """Adds a request of the agent; a known name changes nothing. Raises RateLimited at `most` requests."""
        under_way = self._under_way.setdefault(agent, {})
        if request in under_way:
            return
        if len(under_way) >= most:
            under_way = {name: began for name, began in under_way.items() if now - began < _COUNTS_FOR}
            self._under_way[agent] = under_way
        if len(under_way) >= most:
            raise RateLimited(
                f"agent {agent!r} already has {most} requests in progress (agents.{agent}.max_requests):"
                " try again after one has ended",
                retry_after=_AGAIN_AFTER,
            )
        under_way[request] = now

    def end(self, agent: str, request: str) -> None:
        """Removes a request that has ended or was not sent. An unknown one is ignored."""
        self._under_way.get(agent, {}).pop(request, None)

    def forget(self) -> None:
        """Removes all requests."""
        self._under_way.clear()

    def of(self, agent: str) -> int:
        """The number of the agent's requests."""
        return len(self._under_way.get(agent, ()))
