"""`equabot audit verify`: whether the audit log is what the broker wrote, all of it, in its order."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from broker.cli import output
from broker.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from broker.domain.audit import Summary, Verifying

_LONGEST_LINE: Final = 1 << 20
_SHORTEST_NOTE: Final = 8
_ABOUT: Final = """\
Reads one log, in one file or in several, the oldest first. Exits with 0 and one line for a log that is whole; with 1 and
the first fault, by file and line, for one in which a record was changed, taken out, put in or moved.

A log whose last records were cut off is a whole log, to whoever has nothing to compare it with. --head takes a hash that was
noted before: the broker writes them to its own log, an earlier run of this command printed one, and <state>/audit.head holds
the last. The broker itself looks when it starts, and writes down what it finds.
"""


def add_parser(subparsers: Any, **described: str) -> None:
    """`audit verify [--head HASH]… [--captured] FILE…`."""
    from argparse import RawDescriptionHelpFormatter  # noqa: PLC0415

    parser: ArgumentParser = subparsers.add_parser("audit", **described)
    verify: ArgumentParser = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "verify",
        help="find whatever was changed in an audit log",
        description=_ABOUT,
        formatter_class=RawDescriptionHelpFormatter,
    )
    verify.add_argument("files", metavar="FILE", nargs="+", help="a file of the log, oldest first; - is standard input")
    verify.add_argument(
        "--head", metavar="HASH", action="append", default=[], help="the hash of a record that must be there (or its beginning)"
    )
    verify.add_argument(
        "--captured",
        action="store_true",
        help="what a container printed: other lines stand between the records, and the first ones may be gone",
    )
    verify.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Prints one line. Raises Failure for a log that is not whole, and for a file that cannot be read."""
    from broker.domain.audit import Verifying  # noqa: PLC0415

    verifying = Verifying(captured=args.captured, noted=map(_hash, args.head))
    output.say(_said(_verified(verifying, args.files)))
    return Exit.DONE


def _hash(text: str) -> str:
    wanted = text.strip().lower()
    if len(wanted) < _SHORTEST_NOTE or wanted.strip("0123456789abcdef"):
        raise Failure(
            f"--head wants a record's hash, or at least {_SHORTEST_NOTE} digits of it, in hexadecimal", code=Exit.USAGE
        )
    return wanted


def _verified(verifying: "Verifying", files: Sequence[str]) -> "Summary":
    from broker.domain.audit import Unsound  # noqa: PLC0415

    name, before, rest = files[0], 0, b""
    try:
        for name in files:
            before = verifying.lines
            with _opened(name) as file:
                rest = _read(verifying, file)
            if rest:
                break
        return verifying.end(rest)
    except Unsound as why:
        place = f"{name}:{why.line - before}" if why.line > before else name
        raise Failure(f"{place}: {why}") from None


def _read(verifying: "Verifying", file: BinaryIO) -> bytes:
    """Takes every line; returns what follows the last newline."""
    while line := file.readline(_LONGEST_LINE):
        if not line.endswith(b"\n"):
            return line
        verifying.take(line[:-1])
    return b""


def _opened(name: str) -> BinaryIO:
    return open(0, "rb", closefd=False) if name == "-" else open(name, "rb")  # noqa: PTH123 - the caller closes it


def _said(found: "Summary") -> str:
    parts = [
        f"sound: {found.records} records from {found.first} to {found.last}",
        f"the last is {found.head.sequence}, hash {found.head.hash}",
    ]
    if found.after.sequence:
        parts.append(f"it goes on from record {found.after.sequence}, hash {found.after.hash}, of an earlier file")
    if found.lost:
        parts.append(f"{found.lost} more could not be recorded")
    if found.torn:
        parts.append(f"a crash left {found.torn} unfinished")
    if found.blind:
        parts.append(f"{found.blind} starts had nothing to compare it with")
    return "; ".join(parts)
