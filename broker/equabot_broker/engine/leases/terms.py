"""The terms of leases in the configuration: agents, deliveries and durations."""

from typing import Final

from equabot_broker.domain.errors import BrokerError, DeliveryNotAllowed
from equabot_broker.domain.leases import Lease, LeaseOptions
from equabot_broker.domain.policies import NO_GATEWAY, AgentPolicy, Delivery, Policies
from equabot_broker.domain.provider import Catalog

_NO_GATEWAY: Final = "no_gateway"


def is_gateway_absent(error: BrokerError) -> bool:
    """Whether the broker refused a token only because no gateway runs with it. No policy was asked."""
    return isinstance(error, DeliveryNotAllowed) and error.metadata.get("cause") == _NO_GATEWAY


class LeaseTerms:
    """Answers from the configuration only."""

    def __init__(self, *, catalog: Catalog, policies: Policies, options: LeaseOptions, deliveries: frozenset[Delivery]) -> None:
        self._catalog = catalog
        self._policies = policies
        self._options = options
        self._deliveries = deliveries

    def apply(self, *, catalog: Catalog, policies: Policies, options: LeaseOptions, deliveries: frozenset[Delivery]) -> None:
        """Another configuration is in effect."""
        self._catalog, self._policies, self._options, self._deliveries = catalog, policies, options, deliveries

    @property
    def default_ttl(self) -> float:
        """The default time to live in seconds."""
        return self._options.default_ttl

    def longest(self, agent: str) -> float:
        """The longest duration of a lease of the agent, with all renewals, in seconds. Raises PolicyDenied."""
        return min(self.policy(agent).max_ttl, self._options.max_ttl)

    def policy(self, agent: str) -> AgentPolicy:
        """The agent's policy. Raises PolicyDenied for an agent that is not configured."""
        return self._policies.of(agent)

    def delivery(self, agent: str, provider: str, asked: str = "") -> Delivery:
        """The delivery for the agent and provider. Raises DeliveryNotAllowed, PolicyDenied."""
        unbrokered = self._gateway_fault(provider)
        available = self._deliveries - {Delivery.BROKERED} if unbrokered else self._deliveries
        return self.policy(agent).choose_delivery(agent, asked, available=available, unbrokered=unbrokered)

    def check_gateway(self, asked: str) -> None:
        """Raises DeliveryNotAllowed for a brokered lease without a gateway.

        This is checked before any policy, so that a caller that accepts both deliveries can ask for the other one.
        """
        if asked == Delivery.BROKERED and Delivery.BROKERED not in self._deliveries:
            raise DeliveryNotAllowed(f"delivery 'brokered' is not available: {NO_GATEWAY}", metadata={"cause": _NO_GATEWAY})

    def allows(self, lease: Lease) -> bool:
        """Whether the configuration would grant the lease on its profile, for any time."""
        policy = self._policies.agents.get(lease.agent)
        known = lease.provider in self._catalog.providers
        if not known or policy is None or lease.delivery not in self._deliveries.intersection(policy.deliveries):
            return False
        if lease.brokered and self._gateway_fault(lease.provider):
            return False
        return policy.allows_profile(lease.provider, lease.profile)

    def _gateway_fault(self, provider: str) -> str:
        """Why the provider has no brokered leases, and what to do; empty if it has."""
        if Delivery.BROKERED not in self._deliveries:
            return NO_GATEWAY
        return self._catalog.providers[provider].gateway_fault
