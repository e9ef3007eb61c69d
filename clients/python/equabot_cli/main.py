"""`equabot`: parses the command line, runs one command, and turns its end into an exit code and one line.

A command is a module: `add_parser(subparsers)` declares its arguments, and `run(args)` returns its exit code. Only the module
of the requested command is imported, and it imports slow modules when it runs. `equabot key` must be fast, because the request
of an agent waits for it. Two packages install the script `equabot`, and both call this `main`. If the broker's package is
installed, its commands are available too (ADR 45).
"""

import errno
import sys
from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from traceback import extract_tb
from typing import Any, Final

from equabot_cli.agent_log import configure_log
from equabot_cli.exits import Exit, Failure
from equabot_cli.hardening import end_first, hide_memory
from equabot_cli.local_configuration import standard_places
from equabot_cli.output import complain
from equabot_cli.parser import Parser
from equabot_cli.program import AGENT_COMMANDS, BROKER_COMMANDS, Program
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
_HELP: Final = "help"
_ABOUT_HELP: Final = "Show the help of a command."
_ABSENT: Final = "commands of the package equabot-broker, which is not installed here:\n"
_EPILOG: Final = """\
exit codes: 0 success, 1 refused or failed, 3 no broker, 64 usage or configuration error
environment: EQUABOT_HOME, EQUABOT_CONFIG, EQUABOT_RUN_DIR, EQUABOT_BROKER_ADDRESS, EQUABOT_BROKER_UID,
  EQUABOT_DELIVERY, EQUABOT_DEBUG, NO_COLOR
"""


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
    argv = _as_help(argv)
    name = next((word for word in argv if not word.startswith("-")), "")
    parser = command_line(program, only=name)
    words, after = _split(argv) if name == "exec" else (argv, [])
    program.check_words(name, words)
    return parser.parse_args(words, Namespace(verbose=0, serving=False, command=after, program=program))


def command_line(program: Program, *, only: str | None = None) -> Parser:
    """The parser of all commands. With `only`, the others have no arguments, because their modules are not imported."""
    absent = [name for name in BROKER_COMMANDS if name not in program.commands]
    epilog = f"{_EPILOG}{_ABSENT}  {' '.join(absent)}\n" if absent else _EPILOG
    parser = Parser(prog="equabot", epilog=epilog, formatter_class=RawDescriptionHelpFormatter, absent=absent)
    parser.add_argument("--version", action=_Version, distribution=program.distribution, help="Print the version and exit.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in program.commands.items():
        if only in (None, name):
            import_module(command.module).add_parser(subparsers, help=command.about)
        else:
            subparsers.add_parser(name, help=command.about)
    help_parser = subparsers.add_parser(
        _HELP, help=_ABOUT_HELP, description=_ABOUT_HELP, examples=("equabot help", "equabot help lease acquire")
    )
    help_parser.add_argument("words", metavar="WORD", nargs="*", help="The words of the command.")
    return parser


def _as_help(argv: Sequence[str]) -> Sequence[str]:
    """The arguments with `--help` in place of the word `help`. Without an argument, the help is meant too."""
    if not argv:
        return ["--help"]
    named = argv[1:2] if argv[0] == _HELP else ()
    return [*argv[1:], "--help"] if argv[0] == _HELP and not (named and named[0].startswith("-")) else argv


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
