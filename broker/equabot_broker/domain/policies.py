"""Policies: what each agent may use. The default is to deny: an agent without a policy does not exist."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.errors import BrokerError, DeliveryNotAllowed, InvalidArgument, PolicyDenied, RateLimited
from equabot_broker.domain.known_names import no_agent
from equabot_broker.domain.masking import quoted

MAIN: Final = "main"
"""The default agent. All agents use the profiles of its store."""

NO_GATEWAY: Final = "no gateway runs with this broker: start it with `equabot serve --gateway`, or set gateway.mode"
"""Why `brokered` leases are not available, and what to do."""


class Delivery(StrEnum):
    """What an agent receives: the secret itself, or an opaque token that only the gateway accepts."""

    RAW = "raw"
    BROKERED = "brokered"


@dataclass(frozen=True, slots=True)
class Allowance:
    """The requests that an agent's rate had left at a steady instant."""

    left: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPolicy:
    """The limits of one agent. `"*"` in `providers` and `profiles` means any. Durations are in seconds.

    `rate` is the average number of acquires per second, with `burst` at once, and of renewals likewise; None: unlimited.
    `requests` are rules for requests through the gateway (`routing.request_rules`). `max_requests` is the number of
    concurrent requests.
    """

    providers: frozenset[str] = frozenset()
    profiles: frozenset[str] = frozenset({"*"})
    deliveries: tuple[Delivery, ...] = (Delivery.RAW, Delivery.BROKERED)
    max_ttl: float = 3600.0
    max_leases: int = 100
    rate: float | None = None
    burst: int = 20
    requests: tuple[str, ...] = ()
    max_requests: int = 256

    @property
    def hands_out_secrets(self) -> bool:
        """Whether the agent may receive a secret itself."""
        return Delivery.RAW in self.deliveries

    def allows_provider(self, provider: str) -> bool:
        """Whether the agent may use credentials of this provider."""
        return "*" in self.providers or provider in self.providers

    def allows_profile(self, provider: str, profile: str) -> bool:
        """Whether the agent may use this profile."""
        return self.allows_provider(provider) and ("*" in self.profiles or profile in self.profiles)

    def check_provider(self, agent: str, provider: str) -> None:
        """Raises PolicyDenied unless the agent may use credentials of this provider."""
        if not self.allows_provider(provider):
            raise PolicyDenied(f"agent {agent!r} may not use provider {provider!r}: add it to agents.{agent}.providers")

    def check_profile(self, agent: str, provider: str, profile: str) -> None:
        """Raises PolicyDenied unless the agent may use this profile."""
        self.check_provider(agent, provider)
        if not self.allows_profile(provider, profile):
            raise PolicyDenied(f"agent {agent!r} may not use profile {profile!r}: add it to agents.{agent}.profiles")

    def choose_delivery(
        self, agent: str, asked: str, *, available: frozenset[Delivery], unbrokered: str = NO_GATEWAY
    ) -> Delivery:
        """The delivery to use: the requested one, or the first that is allowed and available.

        `unbrokered` says why `brokered` is not available. Raises DeliveryNotAllowed.
        """
        allowed = [d for d in self.deliveries if d in available]
        if not asked:
            if allowed:
                return allowed[0]
            why = f" ({unbrokered})" if Delivery.BROKERED in self.deliveries else ""
            raise DeliveryNotAllowed(f"agent {agent!r} may not use an available delivery ({_words(available)}){why}")
        try:
            delivery = Delivery(asked)
        except ValueError:
            raise DeliveryNotAllowed(f"delivery {quoted(asked)} is unknown: use {_words(frozenset(Delivery))}") from None
        if delivery not in self.deliveries:
            raise DeliveryNotAllowed(
                f"agent {agent!r} may not use delivery {delivery.value!r}: add it to agents.{agent}.deliveries"
            )
        if delivery not in available:
            why = f": {unbrokered}" if delivery is Delivery.BROKERED else ""
            raise DeliveryNotAllowed(f"delivery {delivery.value!r} is not available{why}")
        return delivery

    def spend(self, agent: str, allowance: Allowance | None, *, now: float) -> Allowance | None:
        """The allowance after one more request at `now` (steady). None: unlimited.

        Raises RateLimited with the time until the next request.
        """
        if self.rate is None:
            return None
        full = float(self.burst)
        left = full if allowance is None else min(full, allowance.left + (now - allowance.at) * self.rate)
        if left < 1.0:
            raise RateLimited(
                f"agent {agent!r} sends more requests than agents.{agent}.rate allows", retry_after=(1.0 - left) / self.rate
            )
        return Allowance(left - 1.0, now)


def _words(deliveries: frozenset[Delivery]) -> str:
    return ", ".join(sorted(d.value for d in deliveries)) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """All agents and their policies."""

    agents: Mapping[str, AgentPolicy] = field(
        default_factory=lambda: MappingProxyType({MAIN: AgentPolicy(providers=frozenset({"*"}))})
    )

    def of(self, agent: str) -> AgentPolicy:
        """The policy of an agent. Raises PolicyDenied for an agent that is not configured."""
        policy = self.agents.get(agent)
        if policy is None:
            raise PolicyDenied(f"agent {quoted(agent)} is not configured: add it to agents")
        return policy

    def check_named(self, agent: str, besides: Container[str] = (), *, error: type[BrokerError] = InvalidArgument) -> None:
        """Checks an agent that an operator named. Raises `error` unless it is configured or in `besides`."""
        if agent not in self.agents and agent not in besides:
            raise error(no_agent(agent, self.agents))
