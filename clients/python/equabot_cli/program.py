"""The parts of a command line: its commands, and how they find the broker's configuration.

An agent's command line has the commands of `AGENT_COMMANDS`. The broker's package adds the commands of the server to them.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from equabot_cli.local_configuration import LocalConfiguration


class Command(NamedTuple):
    """`module` has `add_parser(subparsers, help=about)`, which sets `run`; it is imported when the command is used."""

    module: str
    about: str


AGENT_COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "key": Command("equabot_cli.key", "Print only a secret, for apiKeyHelper and scripts."),
        "exec": Command("equabot_cli.exec_command", "Run a command with leases in its environment."),
        "lease": Command("equabot_cli.lease", "Acquire, renew, revoke, list and watch leases."),
        "health": Command("equabot_cli.health", "Check whether the broker, a provider or a profile serves."),
    }
)
BROKER_COMMANDS: Final = (
    "serve",
    "profile",
    "agent",
    "models",
    "onboard",
    "doctor",
    "dashboard",
    "gateway",
    "config",
    "reload",
    "audit",
)
"""The commands that only the broker's package has. A command line without it names them; a test compares the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command line. It has the version of the package `distribution`. `local` returns what this machine knows about
    its broker. `reads_files` is True if it can read a configuration file. `check_words` refuses arguments before they are
    parsed. `configure_log` sends the log to standard error."""

    distribution: str
    commands: Mapping[str, Command]
    local: Callable[[Namespace], LocalConfiguration]
    reads_files: bool
    check_words: Callable[[str, Sequence[str]], None]
    configure_log: Callable[[Namespace], None]
