"""The command line of an installed broker: the commands of agents and those of the server."""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from equabot_broker.cli.local_broker import local
from equabot_cli.exits import Exit, Failure
from equabot_cli.program import AGENT_COMMANDS, Command, Program

_PACKAGE: Final = "equabot_broker.cli"
_STORING: Final = ("models", "onboard", "doctor", "agent")


def _check_words(name: str, words: Sequence[str]) -> None:
    """Raises Failure for an argument that looks like a credential: a command that stores credentials takes none as an
    argument."""
    if name not in _STORING:
        return
    from equabot_broker.schema.faults import is_credential  # noqa: PLC0415

    if any(is_credential(part) for word in words for part in (word, word.partition("=")[2])):
        raise Failure(
            "an argument looks like a credential (not shown). Every user of this machine can read arguments, and the"
            " shell keeps them in its history: replace that credential, and enter the new one at the prompt or on"
            " standard input",
            code=Exit.USAGE,
        )


def _configure_log(args: Namespace) -> None:
    """Configures logging to standard error. Only the log of a broker without a terminal is JSON, because a program collects
    it."""
    from equabot_broker.telemetry.log import configure  # noqa: PLC0415

    levels = ("INFO", "DEBUG") if args.serving else ("WARNING", "INFO", "DEBUG")
    level = levels[min(args.verbose, len(levels) - 1)]
    args.redactor = configure(level, json=args.serving and not sys.stderr.isatty(), stream=sys.stderr)


PROGRAM: Final = Program(
    distribution="equabot-broker",
    commands={
        "serve": Command(f"{_PACKAGE}.serve", "Run the broker."),
        "lease": AGENT_COMMANDS["lease"],
        "profile": Command(f"{_PACKAGE}.profiles", "Clear the cooldown, the disable and the rejection of a profile."),
        "agent": Command(f"{_PACKAGE}.agent", "List, suspend and resume agents."),
        "key": AGENT_COMMANDS["key"],
        "exec": AGENT_COMMANDS["exec"],
        "health": AGENT_COMMANDS["health"],
        "models": Command(f"{_PACKAGE}.models", "Show the state of every credential, and manage credentials."),
        "onboard": Command(f"{_PACKAGE}.onboard", "Store a first credential, step by step."),
        "doctor": Command(f"{_PACKAGE}.doctor", "Find problems, and fix what can be fixed safely."),
        "dashboard": Command(f"{_PACKAGE}.dashboard", "Show the broker on a page in the browser."),
        "gateway": Command(f"{_PACKAGE}.gateway", "Print the configuration of the gateway."),
        "config": Command(f"{_PACKAGE}.config_check", "Check a configuration."),
        "reload": Command(f"{_PACKAGE}.reload", "Reload the configuration of the running broker."),
        "audit": Command(f"{_PACKAGE}.audit", "Verify the audit log, or accept one that no anchor confirms."),
    },
    local=local,
    reads_files=True,
    check_words=_check_words,
    configure_log=_configure_log,
)
