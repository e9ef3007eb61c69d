"""`equabot`: parses the command line, runs one command, and turns its end into an exit code and one line.

A command is a module: `add_parser(subparsers)` declares its arguments, and `run(args)` returns its exit code. Only the module
of the requested command is imported, and it imports slow modules when it runs. `equabot key` must be fast, because the request
of an agent waits for it. Two packages install the script `equabot`, and both call this `main`. If the broker's package is
installed, its commands are available too (ADR 45).
"""

import errno
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from importlib import import_module
from traceback import extract_tb
from typing import Any, Final, NoReturn

from equabot_cli.agent_log import configure_log
from equabot_cli.exits import NO_EXITS, Exit, Failure
from equabot_cli.hardening import end_first, hide_memory
from equabot_cli.local_configuration import standard_places
from equabot_cli.output import complain
from equabot_cli.program import AGENT_COMMANDS, Program
from equabot_cli.streams import flushed, prepare
from equabot_cli.surroundings import environment

_SERVER: Final = "equabot_broker.cli.main"
"""The module with the PROGRAM of the broker's package. It is imported by name: the client must not depend on the broker."""
AGENT: Final = Program(
    distribution="equabot-client",
    commands=AGENT_COMMANDS,
    local=standard_places,
    reads_files=False,
    check_words=lambda _name, _words: None,
    configure_log=configure_log,
)
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
    from equabot_cli.masking import looks_secret  # noqa: PLC0415

    head, unrecognized, words = message.partition("unrecognized arguments: ")
    if unrecognized:
        options = [word.partition("=")[0] for word in words.split(" ") if word.startswith("-")]
        return f"{head}{unrecognized}{' '.join(o for o in options if not looks_secret(o)) or '(not shown)'}"
    return " ".join("(not shown)" if looks_secret(word.strip("'\"")) else word for word in message.split(" "))


def installed() -> Program:
    """The command line of the broker's package if it is installed, else that of an agent."""
    try:
        server = import_module(_SERVER)
    except ModuleNotFoundError as missing:
        if missing.name != _SERVER.partition(".")[0]:
            raise
        return AGENT
    program: Program = server.PROGRAM
    return program


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command of `argv` (default: the process's arguments) and returns its exit code. Never raises."""
    args = Namespace(verbose=0)
    prepare()
    try:
        args = parse(list(sys.argv[1:] if argv is None else argv))
        hide_memory()
        if not args.serving and not args.command:
            end_first()
        args.program.configure_log(args)
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
    program = installed()
    name = next((word for word in argv if not word.startswith("-")), "")
    parser = command_line(program, only=name)
    words, after = _split(argv) if name == "exec" else (argv, [])
    program.check_words(name, words)
    return parser.parse_args(words, Namespace(verbose=0, serving=False, command=after, program=program))


def command_line(program: Program, *, only: str | None = None) -> Parser:
    """The parser of all commands. With `only`, the others have no arguments, because their modules are not imported."""
    parser = Parser(prog="equabot", epilog=_EPILOG, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--version", action=_Version, distribution=program.distribution, help="Print the version and exit.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in program.commands.items():
        if only in (None, name):
            import_module(command.module).add_parser(subparsers, help=command.about)
        else:
            subparsers.add_parser(name, help=command.about)
    return parser


def _split(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The arguments before and after the first `--`. Otherwise argparse would look for its own options after it."""
    at = argv.index("--") if "--" in argv else len(argv)
    return argv[:at], argv[at + 1 :]


class _Version(Action):
    """Looks up the version only on request: the lookup takes as long as all of `equabot key`."""

    def __init__(self, *, distribution: str, **options: Any) -> None:
        super().__init__(**options, nargs=0)
        self._distribution = distribution

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"equabot {version(self._distribution)}")
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
