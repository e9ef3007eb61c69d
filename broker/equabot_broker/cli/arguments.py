"""The configuration and the agent that the arguments of a command name."""

from argparse import Namespace
from typing import TYPE_CHECKING

from equabot_broker.domain.known_names import no_agent
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.config.model import Config


def configuration(args: Namespace) -> "Config":
    """Loads the configuration that the arguments and the environment name. Raises Failure with every fault in it."""
    from equabot_broker.config.load import load  # noqa: PLC0415
    from equabot_broker.schema.faults import ConfigurationFaults  # noqa: PLC0415

    try:
        return load(config_path=args.config, run_dir=args.run_dir, environ=environment())
    except ConfigurationFaults as faults:
        raise Failure(str(faults), code=Exit.USAGE) from None


def chosen_agent(args: Namespace, config: "Config") -> str:
    """The agent that the arguments name, else `main`, else the first configured agent. Raises Failure if it is not
    configured."""
    agents = config.policies.agents
    agent: str = args.agent or next((name for name in ("main", *agents) if name in agents), "main")
    if agent not in agents:
        raise Failure(no_agent(agent, agents), code=Exit.USAGE)
    return agent
