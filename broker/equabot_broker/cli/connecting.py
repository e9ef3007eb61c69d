"""How a command finds a broker, and what its refusals become."""

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from equabot_broker.cli.absence import absence, closed_to
from equabot_broker.cli.arguments import configuration
from equabot_broker.cli.exits import Exit, Failure
from equabot_broker.cli.output import complain
from equabot_broker.cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_client import Broker
    from equabot_client.admin import Admin

_TIMEOUT = 10.0


@contextmanager
def broker(args: Namespace) -> Iterator["Broker"]:
    """The broker as the agent that the arguments name. Errors of the client that are raised inside become Failures."""
    from equabot_client import connect  # noqa: PLC0415

    with refusals(args), connect(_agent_address(args), agent=args.agent or "main", timeout=_TIMEOUT) as connected:
        yield connected


@contextmanager
def admin(args: Namespace) -> Iterator["Admin"]:
    """The broker as its operator. Errors as with `broker`."""
    from equabot_client.admin import connect  # noqa: PLC0415

    with refusals(args), connect(_admin_address(args), timeout=_TIMEOUT) as connected:
        yield connected


@contextmanager
def refusals(args: Namespace) -> Iterator[None]:
    """What the client library raises inside, as Failures: 3 when no broker answers, 64 for an agent that is not configured,
    1 for what the broker refuses."""
    from equabot_client.errors import BrokerUnavailable, EquabotError  # noqa: PLC0415

    try:
        yield
    except BrokerUnavailable as away:
        address = away.metadata.get("address", "")
        failure = Failure(away.message, code=Exit.NO_BROKER)
        if address:
            failure = absence(address, args, remedy=away.metadata.get("remedy", ""))
    except EquabotError as refused:
        failure = Failure(f"{refused.reason}: {refused.message}")
    except ValueError as misnamed:  # an address that is none
        failure = Failure(str(misnamed), code=Exit.USAGE)
    else:
        return
    raise failure


@contextmanager
def optional() -> Iterator[None]:
    """Ends quietly where no broker answers inside, and with a complaint where it may be another user's."""
    from equabot_client.errors import BrokerNotTrusted, BrokerUnavailable  # noqa: PLC0415

    try:
        yield
    except BrokerUnavailable as away:
        address = away.metadata.get("address", "")
        if address.startswith("unix:") and (closed := closed_to(Path(address.removeprefix("unix:")))):
            complain(f"{closed}. This command goes on without it")
    except BrokerNotTrusted as refused:
        complain(f"{refused.message}. This command does not use it")


def addressed(args: Namespace) -> bool:
    """Whether the environment says which socket to use, and no argument says otherwise."""
    return args.agent is None and args.run_dir is None and bool(environment().get("EQUABOT_BROKER_ADDRESS"))


def _agent_address(args: Namespace) -> str | None:
    """None leaves it to the client library, which knows the environment and the usual places, but no configuration."""
    if addressed(args) or not configured(args):
        return None
    config = configuration(args)
    agent = args.agent or "main"
    return str(config.listen.agents.get(agent, config.run_dir / agent / "broker.sock"))


def _admin_address(args: Namespace) -> str | None:
    if not configured(args):
        return None
    config = configuration(args)
    return str(config.listen.admin or config.run_dir / "admin" / "broker.sock")


def configured(args: Namespace) -> bool:
    """Whether it takes a configuration to tell where the sockets are. Reading it costs `equabot key` time."""
    known = environment()
    if args.run_dir or args.config or known.get("EQUABOT_CONFIG"):
        return True
    if args.agent is not None and known.get("EQUABOT_BROKER_ADDRESS"):
        return True  # the client library would take the address
    home = os.path.expanduser(known.get("EQUABOT_HOME") or "~/.equabot")  # noqa: PTH111  (raises nothing for an unknown user)
    try:
        Path(home[1:] if home.startswith("~/") else home, "equabot.yaml").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # reading it says what is wrong
    return True
