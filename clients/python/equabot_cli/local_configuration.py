"""What the commands of an agent need from the broker's configuration on this machine: the sockets, the agents, the providers.

Only the broker's package can read a configuration file. Without it, the commands use the default paths of the client library.
"""

from argparse import Namespace
from collections.abc import Collection
from typing import Protocol

from equabot_cli.exits import Exit, Failure
from equabot_cli.known_providers import KnownProviders
from equabot_cli.surroundings import environment


class LocalConfiguration(Protocol):
    """What this machine knows about its broker."""

    def agent_address(self, agent: str) -> str:
        """The address at which this agent reaches the broker."""
        ...

    def admin_address(self) -> str:
        """The address of the admin socket."""
        ...

    def health_address(self) -> str:
        """The address of the health service."""
        ...

    def missing_agent(self, agent: str) -> str:
        """The message that the agent is not configured, with the configured ones; empty if it is, or if not known."""
        ...

    def configured_in(self) -> str:
        """The file in which agents are configured; empty if not known."""
        ...

    def providers(self) -> KnownProviders:
        """Every known provider."""
        ...

    def bound_variables(self) -> Collection[str]:
        """The environment variables that the configuration binds to profiles."""
        ...


class StandardPlaces:
    """The default paths, for a machine without the broker's package."""

    def __init__(self, run_dir: str | None) -> None:
        self._run_dir = run_dir

    def agent_address(self, agent: str) -> str:
        """The socket of the agent. EQUABOT_BROKER_ADDRESS is ignored."""
        environ = {name: value for name, value in environment().items() if name != "EQUABOT_BROKER_ADDRESS"}
        if self._run_dir:
            environ["EQUABOT_RUN_DIR"] = self._run_dir
        from equabot_client._address import resolve  # noqa: PLC0415 - it imports gRPC

        return resolve(None, agent=agent, environ=environ)

    def admin_address(self) -> str:
        """The admin socket."""
        return self.agent_address("admin")

    def health_address(self) -> str:
        """The socket of the agent `main`, because every socket has the health service; empty for the default of the client."""
        return self.agent_address("main") if self._run_dir else ""

    def missing_agent(self, agent: str) -> str:
        """Empty: not known."""
        return ""

    def configured_in(self) -> str:
        """Empty: not known."""
        return ""

    def providers(self) -> KnownProviders:
        """The built-in providers."""
        from equabot_cli.built_in_providers import BUILT_IN  # noqa: PLC0415

        return BUILT_IN

    def bound_variables(self) -> Collection[str]:
        """Empty: not known."""
        return ()


def standard_places(args: Namespace) -> LocalConfiguration:
    """The default paths for these arguments. Raises Failure for `--config`, because no file can be read."""
    if args.config:
        raise Failure(
            "--config: only the package equabot-broker can read a configuration, and it is not installed here. Use --run-dir"
            " or EQUABOT_BROKER_ADDRESS",
            code=Exit.USAGE,
        )
    return StandardPlaces(args.run_dir)
