"""Arguments that several commands have, and the parsing of their values."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import timedelta
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from equabot_broker.cli.exits import Exit, Failure
from equabot_broker.cli.surroundings import environment
from equabot_broker.domain.known_names import no_agent

if TYPE_CHECKING:
    from equabot_broker.config.model import Config

_PROGRAM: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def add_places(parser: ArgumentParser) -> None:
    """Adds the arguments for the configuration, the sockets and the verbosity."""
    parser.add_argument("--config", metavar="FILE", help="The configuration file (default: $EQUABOT_HOME/equabot.yaml).")
    parser.add_argument("--run-dir", metavar="DIR", help="The directory of the sockets.")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="Log more; repeat it for more detail.")


def add_agent(parser: ArgumentParser) -> None:
    """Adds the argument for the agent to act as."""
    parser.add_argument("--agent", metavar="NAME", help="The agent to act as (default: main).")


def add_delivery(parser: ArgumentParser, default: str) -> None:
    """Adds the argument for the delivery of leases."""
    parser.add_argument(
        "--delivery",
        metavar="raw|brokered",
        help=f"Deliver the key itself (raw) or a token for the gateway (brokered). Default: EQUABOT_DELIVERY, else {default}.",
    )


def delivery(args: Namespace) -> str | None:
    """The requested delivery: the argument, else `EQUABOT_DELIVERY`, which `exec` sets for a command that holds no key."""
    return args.delivery or environment().get("EQUABOT_DELIVERY") or None


def client(command: str) -> str | None:
    """The name of a command's program, by which the broker can choose a credential; None if the name is not valid."""
    name = PurePath(command).name
    return name if _PROGRAM.fullmatch(name) else None


def duration(written: str) -> timedelta:
    """Parses a duration such as `15m` or `1h30m`. Raises ArgumentTypeError."""
    from equabot_broker.schema.faults import ValueRefused  # noqa: PLC0415
    from equabot_broker.schema.values import duration as seconds  # noqa: PLC0415

    try:
        return timedelta(seconds=seconds(written))
    except ValueRefused as refused:
        message = str(refused)
    raise ArgumentTypeError(message)


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
