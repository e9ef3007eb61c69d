"""What the commands of an agent need from the broker's configuration, if the broker's package is installed."""

from argparse import Namespace
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from equabot_broker.cli.arguments import configuration
from equabot_broker.domain.known_names import no_agent
from equabot_cli.known_providers import KnownProvider, KnownProviders

if TYPE_CHECKING:
    from equabot_broker.config.model import Config
    from equabot_broker.domain.provider import Provider

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to
_VARIABLES: Final = ("env", "dotenv")


class ConfiguredBroker:
    """The broker that a configuration describes: `equabot_cli.local_configuration.LocalConfiguration`."""

    def __init__(self, config: "Config") -> None:
        self._config = config

    def agent_address(self, agent: str) -> str:
        """The socket of the agent."""
        socket = self._config.listen.agents.get(agent, self._config.run_dir / agent / "broker.sock")
        return f"unix:{socket}"

    def admin_address(self) -> str:
        """The admin socket."""
        return f"unix:{self._config.listen.admin or self._config.run_dir / 'admin' / 'broker.sock'}"

    def health_address(self) -> str:
        """The address at which this machine reaches the health service."""
        address = self._config.listen.health
        return str(address._replace(host=_ANY_ADDRESS.get(address.host, address.host)))

    def missing_agent(self, agent: str) -> str:
        """The message that the agent is not configured, with the configured ones; empty if it is configured."""
        agents = self._config.policies.agents
        return "" if agent in agents else no_agent(agent, agents)

    def configured_in(self) -> str:
        """The configuration file, or the default path of one."""
        return str(self._config.file or self._config.home / "equabot.yaml")

    def providers(self) -> KnownProviders:
        """The built-in providers and those of the configuration."""
        return KnownProviders(map(known_provider, self._config.catalog.providers.values()))

    def bound_variables(self) -> Collection[str]:
        """The variables that the configuration binds to profiles."""
        return frozenset(place.key for place in self._config.rules.bindings if place.kind in _VARIABLES)


def local(args: Namespace) -> ConfiguredBroker:
    """The broker of the configuration that the arguments and the environment name. Raises Failure."""
    return ConfiguredBroker(configuration(args))


def known_provider(provider: "Provider") -> KnownProvider:
    """What a command needs to know about a provider."""
    from equabot_broker.domain.provider import Mode  # noqa: PLC0415

    return KnownProvider(
        id=provider.id,
        aliases=provider.aliases,
        env_names=tuple(env.name for env in provider.env_names),
        list_env_names=provider.list_env_names,
        sdk_env_names=provider.sdk_env_names(),
        key_env=provider.sdk_env_name(Mode.API_KEY),
        token_env=provider.sdk_env_name(Mode.TOKEN),
        other_env=provider.other_env,
        exchange_env=tuple(provider.exchange.variables.values()) if provider.exchange is not None else (),
        base_url_env=provider.base_url_env,
        address_env=provider.address_env,
        prefixes=(*provider.key_prefixes, *provider.token_prefixes),
        speaks=provider.speaks,
    )
