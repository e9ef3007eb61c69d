"""What an agent may have. Deny by default: an agent that no policy names does not exist."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.errors import BrokerError, DeliveryNotAllowed, InvalidArgument, PolicyDenied, RateLimited
from equabot_broker.domain.known_names import no_agent
from equabot_broker.domain.masking import quoted

MAIN: Final = "main"
"""The agent that there is by default, and whose profile store everybody reads."""

NO_GATEWAY: Final = "no gateway runs with this broker: start it with `equabot serve --gateway`, or set gateway.mode"
"""Why there is no `brokered` lease, with what to do."""


class Delivery(StrEnum):
    """What an agent is handed: the secret itself, or an opaque token that only the gateway can use."""

    RAW = "raw"
    BROKERED = "brokered"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What was left of an agent's rate at a steady instant, in requests."""

    left: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPolicy:
    """One agent's bounds. `"*"` in `providers` and `profiles` means any; durations in seconds; `rate` is acquires a second
    on average with `burst` at once, and as many renewals; None: unlimited. `requests` narrow what may be asked through the
    gateway (the rules of `routing.request_rules`), `max_requests` how many at once."""

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
        """Whether the agent may ever hold a secret itself."""
        return Delivery.RAW in self.deliveries

    def allows_provider(self, provider: str) -> bool:
        """Whether the agent may have credentials of this provider."""
        return "*" in self.providers or provider in self.providers

    def allows_profile(self, provider: str, profile: str) -> bool:
        """Whether the agent may have this profile."""
        return self.allows_provider(provider) and ("*" in self.profiles or profile in self.profiles)

    def check_provider(self, agent: str, provider: str) -> None:
        """Raises PolicyDenied unless the agent may have credentials of this provider."""
        if not self.allows_provider(provider):
            raise PolicyDenied(f"agent {agent!r} may not use provider {provider!r}: add it to agents.{agent}.providers")

    def check_profile(self, agent: str, provider: str, profile: str) -> None:
        """Raises PolicyDenied unless the agent may have this profile."""
        self.check_provider(agent, provider)
        if not self.allows_profile(provider, profile):
            raise PolicyDenied(f"agent {agent!r} may not use profile {profile!r}: add it to agents.{agent}.profiles")

    def choose_delivery(
        self, agent: str, asked: str, *, available: frozenset[Delivery], unbrokered: str = NO_GATEWAY
    ) -> Delivery:
        """The delivery to use: the one asked for, or the first that is allowed and available. `unbrokered` says why `brokered`
        is not available, where it is not.

        Raises DeliveryNotAllowed.
        """
        allowed = [d for d in self.deliveries if d in available]
        if not asked:
            if allowed:
                return allowed[0]
            why = f" ({unbrokered})" if Delivery.BROKERED in self.deliveries else ""
            raise DeliveryNotAllowed(f"agent {agent!r} is allowed no delivery that is available: {_words(available)}{why}")
        try:
            delivery = Delivery(asked)
        except ValueError:
            raise DeliveryNotAllowed(f"delivery {quoted(asked)} is unknown: use {_words(frozenset(Delivery))}") from None
        if delivery not in self.deliveries:
            raise DeliveryNotAllowed(
                f"agent {agent!r} may not have delivery {delivery.value!r}: add it to agents.{agent}.deliveries"
            )
        if delivery not in available:
            why = f": {unbrokered}" if delivery is Delivery.BROKERED else ""
            raise DeliveryNotAllowed(f"delivery {delivery.value!r} is not available{why}")
        return delivery

    def spend(self, agent: str, allowance: Allowance | None, *, now: float) -> Allowance | None:
        """What is left after one more request at `now` (steady); None: unlimited, or untouched so far.

        Raises RateLimited, saying when to come again.
        """
        if self.rate is None:
            return None
        full = float(self.burst)
        left = full if allowance is None else min(full, allowance.left + (now - allowance.at) * self.rate)
        if left < 1.0:
            raise RateLimited(
                f"agent {agent!r} asks more often than agents.{agent}.rate allows", retry_after=(1.0 - left) / self.rate
            )
        return Allowance(left - 1.0, now)


def _words(deliveries: frozenset[Delivery]) -> str:
    return ", ".join(sorted(d.value for d in deliveries)) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Every agent that exists, and its bounds."""

    agents: Mapping[str, AgentPolicy] = field(
        default_factory=lambda: MappingProxyType({MAIN: AgentPolicy(providers=frozenset({"*"}))})
    )

    def of(self, agent: str) -> AgentPolicy:
        """The agent's bounds. Raises PolicyDenied for an agent that is not configured."""
        policy = self.agents.get(agent)
        if policy is None:
            raise PolicyDenied(f"agent {quoted(agent)} is not configured: add it to agents")
        return policy

    def check_named(self, agent: str, besides: Container[str] = (), *, error: type[BrokerError] = InvalidArgument) -> None:
        """What an operator named: raises that error unless it is a configured agent, or one of those `besides`."""
        if agent not in self.agents and agent not in besides:
            raise error(no_agent(agent, self.agents))
