"""`equabot`: parses the command line, runs one command, and turns its end into an exit code and one line.

A command is a module of this package: `add_parser(subparsers)` declares its arguments, and `run(args)` returns its exit code.
Only the module of the requested command is imported, and it imports slow modules when it runs. `equabot key` must be fast,
because the request of an agent waits for it.
"""

import errno
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from importlib import import_module
from traceback import extract_tb
from typing import Any, Final, NoReturn

from equabot_broker.cli.exits import NO_EXITS, Exit, Failure
from equabot_broker.cli.hardening import end_first, hide_memory
from equabot_broker.cli.output import complain
from equabot_broker.cli.streams import flushed, prepare
from equabot_broker.cli.surroundings import environment

_COMMANDS: Final = {
    "serve": ("serve", "Run the broker."),
    "lease": ("lease", "Acquire, renew, revoke, list and watch leases."),
    "profile": ("profiles", "Clear the cooldown, the disable and the rejection of a profile."),
    "agent": ("agent", "List, suspend and resume agents."),
    "key": ("key", "Print only a secret, for apiKeyHelper and scripts."),
    "exec": ("exec_command", "Run a command with leases in its environment."),
    "health": ("health", "Check whether the broker, a provider or a profile serves."),
    "models": ("models", "Show the state of every credential, and manage credentials."),
    "onboard": ("onboard", "Store a first credential, step by step."),
    "doctor": ("doctor", "Find problems, and fix what can be fixed safely."),
    "dashboard": ("dashboard", "Show the broker on a page in the browser."),
    "gateway": ("gateway", "Print the configuration of the gateway."),
    "config": ("config_check", "Check a configuration."),
    "reload": ("reload", "Reload the configuration of the running broker."),
    "audit": ("audit", "Verify the audit log, or accept one that no anchor confirms."),
}
_STORING: Final = ("models", "onboard", "doctor", "agent")
_EPILOG: Final = """\
exit codes: 0 success, 1 refused or failed, 3 no broker, 64 usage or configuration error
environment: EQUABOT_HOME, EQUABOT_CONFIG, EQUABOT_RUN_DIR, EQUABOT_BROKER_ADDRESS, EQUABOT_BROKER_UID,
  EQUABOT_DELIVERY, EQUABOT_DEBUG, NO_COLOR
"""


class Parser(ArgumentParser):
    """An argument parser that exits with 64 on a usage error. `examples` are whole command lines. `exits` are the exit codes
    of a command that defines its own, with their meaning. The help shows both."""

    def __init__(self, *, examples: Sequence[str] = (), exits: Mapping[int, str] = NO_EXITS, **options: Any) -> None:
        super().__init__(**options, add_help=False)
        self.examples = tuple(examples)
        self.exits = exits
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def format_help(self) -> str:
        codes = [f"  {code:<3}  {meaning}" for code, meaning in sorted(self.exits.items())]
        parts = (["exit codes:", *codes], ["examples:", *(f"  {example}" for example in self.examples)])
        return "\n".join((super().format_help(), *("\n".join((*part, "")) for part in parts if len(part) > 1)))

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(Exit.USAGE, f"{self.prog}: {_shown(message)}\n")


def _shown(message: str) -> str:
    """The error of argparse without words that could be a secret: argparse repeats what it does not understand."""
    from equabot_broker.schema.faults import looks_secret  # noqa: PLC0415

    head, unrecognized, words = message.partition("unrecognized arguments: ")
    if unrecognized:
        options = [word.partition("=")[0] for word in words.split(" ") if word.startswith("-")]
        return f"{head}{unrecognized}{' '.join(o for o in options if not looks_secret(o)) or '(not shown)'}"
    return " ".join("(not shown)" if looks_secret(word.strip("'\"")) else word for word in message.split(" "))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command of `argv` (default: the process's arguments) and returns its exit code. Never raises."""
    args = Namespace(verbose=0)
    prepare()
    try:
        args = parse(list(sys.argv[1:] if argv is None else argv))
        hide_memory()
        if not args.serving and not args.command:
            end_first()
        _configure_log(args)
        code: int = args.run(args)
        sys.stdout.flush()
    except SystemExit as leave:  # argparse has printed the error
        code = leave.code if isinstance(leave.code, int) else Exit.USAGE
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        code = Exit.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last handler: a traceback could show a secret
        code = _report(error, verbose=bool(args.verbose or environment().get("EQUABOT_DEBUG")))
    return code if flushed() else code or Exit.BROKEN_PIPE


def parse(argv: Sequence[str]) -> Namespace:
    """The parsed arguments, with the command's `run`. Raises SystemExit after printing an error or the help."""
    name = next((word for word in argv if not word.startswith("-")), "")
    parser = command_line(only=name)
    words, after = _split(argv) if name == "exec" else (argv, [])
    if name in _STORING:
        _refuse_secrets(words)
    return parser.parse_args(words, Namespace(verbose=0, serving=False, command=after))


def command_line(*, only: str | None = None) -> Parser:
    """The parser of all commands. With `only`, the others have no arguments, because their modules are not imported."""
    parser = Parser(prog="equabot", epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--version", action=_Version, nargs=0, help="Print the version and exit.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command, (module, about) in _COMMANDS.items():
        if only in (None, command):
            import_module(f"equabot_broker.cli.{module}").add_parser(subparsers, help=about)
        else:
            subparsers.add_parser(command, help=about)
    return parser


def _refuse_secrets(words: Sequence[str]) -> None:
    """Raises Failure for an argument that looks like a credential: a command that stores credentials takes none as an
    argument."""
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


def _split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The arguments before and after the first `--`. Otherwise argparse would look for its own options after it."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


class _Version(Action):
    """Looks up the version only on request: the lookup takes as long as all of `equabot key`."""

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"equabot {version('equabot-broker')}")
        parser.exit()


def _report(error: Exception, *, verbose: bool) -> int:
    if isinstance(error, Failure):
        for line in error.message.splitlines():
            complain(line)
        return error.code
    if isinstance(error, OSError) and error.errno == errno.EBADF:
        return Exit.BROKEN_PIPE  # standard output is closed
    if isinstance(error, OSError) and error.strerror:
        complain(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return Exit.FAILED
    complain(f"internal error: {type(error).__name__}" + ("" if verbose else "; EQUABOT_DEBUG=1 shows where"))
    for frame in extract_tb(error.__traceback__) if verbose else ():
        complain(f"  {frame.filename}:{frame.lineno} in {frame.name}")
    return Exit.FAILED
