"""How a command connects to a broker, and how it reports the broker's refusals."""

import os
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from equabot_cli.absence import absence, access_denied
from equabot_cli.exits import Exit, Failure
from equabot_cli.output import complain
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_client import Broker
    from equabot_client.admin import Admin

_TIMEOUT = 10.0


@contextmanager
def broker(args: Namespace) -> Iterator["Broker"]:
    """Connects as the agent that the arguments name. Errors of the client library that are raised inside become Failures."""
    from equabot_client import connect  # noqa: PLC0415

    with refusals(args), connect(_agent_address(args), agent=args.agent or "main", timeout=_TIMEOUT) as connected:
        yield connected


@contextmanager
def admin(args: Namespace, *, timeout: float = _TIMEOUT) -> Iterator["Admin"]:
    """Connects to the admin socket. Errors become Failures, as with `broker`. `timeout` is in seconds for each call."""
    from equabot_client.admin import connect  # noqa: PLC0415

    with refusals(args), connect(_admin_address(args), timeout=timeout) as connected:
        yield connected


@contextmanager
def refusals(args: Namespace) -> Iterator[None]:
    """Turns errors of the client library that are raised inside into Failures. The code is 3 if no broker answers, 64 for an
    agent that is not configured, and 1 for a refusal of the broker."""
    from equabot_client.errors import BrokerUnavailable, EquabotError  # noqa: PLC0415

    try:
        yield
    except BrokerUnavailable as unavailable:
        address = unavailable.metadata.get("address", "")
        failure = Failure(unavailable.message, code=Exit.NO_BROKER)
        if address:
            failure = absence(address, args, remedy=unavailable.metadata.get("remedy", ""))
    except EquabotError as refused:
        failure = Failure(f"{refused.reason}: {refused.message}")
    except ValueError as invalid:  # the address is not valid
        failure = Failure(str(invalid), code=Exit.USAGE)
    else:
        return
    raise failure


@contextmanager
def optional() -> Iterator[None]:
    """Suppresses the error that no broker answers inside. Prints a warning if the broker may belong to another user."""
    from equabot_client.errors import BrokerNotTrusted, BrokerUnavailable  # noqa: PLC0415

    try:
        yield
    except BrokerUnavailable as unavailable:
        address = unavailable.metadata.get("address", "")
        if address.startswith("unix:") and (denied := access_denied(Path(address.removeprefix("unix:")))):
            complain(f"{denied}. The command continues without it")
    except BrokerNotTrusted as refused:
        complain(f"{refused.message}. The command continues without it")


def addressed(args: Namespace) -> bool:
    """Whether the environment names the socket, and no argument overrides it."""
    return args.agent is None and args.run_dir is None and bool(environment().get("EQUABOT_BROKER_ADDRESS"))


def _agent_address(args: Namespace) -> str | None:
    """The agent's socket, or None to let the client library find it: it knows the environment and the defaults, but no
    configuration."""
    if addressed(args) or not configured(args):
        return None
    address: str = args.program.local(args).agent_address(args.agent or "main")
    return address


def _admin_address(args: Namespace) -> str | None:
    if not configured(args):
        return None
    address: str = args.program.local(args).admin_address()
    return address


def configured(args: Namespace) -> bool:
    """Whether the sockets' paths depend on the configuration. `equabot key` avoids reading it, because that takes time."""
    known = environment()
    if args.run_dir or args.config:
        return True
    if args.agent is not None and known.get("EQUABOT_BROKER_ADDRESS"):
        return True  # the client library would use that address
    if not args.program.reads_files:
        return False
    if known.get("EQUABOT_CONFIG"):
        return True
    home = os.path.expanduser(known.get("EQUABOT_HOME") or "~/.equabot")  # noqa: PTH111  (raises nothing for an unknown user)
    try:
        Path(home[1:] if home.startswith("~/") else home, "equabot.yaml").stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # Reading it reports the fault.
    return True
