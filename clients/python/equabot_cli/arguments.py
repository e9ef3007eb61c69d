"""Arguments that several commands have, and the parsing of their values."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import timedelta
from pathlib import PurePath
from typing import Final

from equabot_cli.masking import looks_secret
from equabot_cli.surroundings import environment

_UNITS: Final = {"days": "d", "hours": "h", "minutes": "m", "seconds": "s", "milliseconds": "ms"}
_DURATION: Final = re.compile("".join(f"(?:(?P<{name}>[0-9]{{1,9}}){unit})?" for name, unit in _UNITS.items()))
_LONGEST: Final = timedelta(days=3650)
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
    """Parses a duration above zero and up to 3650 days, such as `15m` or `1h30m`. Raises ArgumentTypeError."""
    found = _DURATION.fullmatch(written)
    shown = f"a value of {len(written)} characters (not shown)" if looks_secret(written) else repr(written)
    if not written or found is None:
        if re.fullmatch(r"[0-9.]+", written):
            raise ArgumentTypeError(f"{shown} has no unit; write 15m, 1h, 90s or 1h30m")
        raise ArgumentTypeError(f"{shown} is not a duration; write it as 15m, 1h, 90s or 1h30m")
    counts = {name: int(count) for name, count in found.groupdict().items() if count}
    try:
        lasts = timedelta(**counts)
    except OverflowError:
        lasts = timedelta.max
    if lasts > _LONGEST:
        raise ArgumentTypeError(f"{shown} is too long; write at most 3650d")
    if not lasts:
        raise ArgumentTypeError("must be longer than zero")
    return lasts
