"""`equabot audit`: verifies that the audit log is complete, unchanged and in order, and accepts a log that no anchor
confirms."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.connecting import admin
from equabot_cli.exits import NO_EXITS, Exit, Failure
from equabot_cli.surroundings import environment

if TYPE_CHECKING:
    from equabot_broker.telemetry.audit_chain import Head
    from equabot_broker.telemetry.audit_verification import AuditVerification, Summary

_LONGEST_LINE: Final = 1 << 20
_SHORTEST_NOTE: Final = 8
_LONGEST_ANCHOR: Final = 256
_ABOUT: Final = """\
Verify one log, in one file or in several files, the oldest first. For an intact log the command prints one line and exits
with 0. If a record was changed, removed, inserted or moved, it prints the first fault, by file and line, and exits with 1.

A log whose last records were removed still has an intact chain. The anchor shows the removal: the broker stores the hash
of the last record there. The anchor is <state>/audit.head, or the file that audit.anchor names in the configuration. The
command compares the anchor with the log if the configuration names the last FILE as audit.path, or if --anchor is given. A
start of the broker at which the anchor was missing or did not match is a fault, too. It remains a fault until an operator
accepts it with `equabot audit accept`.
With --no-anchor, the command uses no anchor and accepts such starts. Pass --head with a hash that was noted elsewhere: the
broker writes hashes to its own log, and this command prints one.
"""
_ACCEPTING: Final = """\
Accept an audit log whose anchor is missing or does not match. In that case the broker does not know whether records were
removed. The broker reports this in its log, in its metrics and in `equabot doctor`, and with audit.fail_closed it grants
nothing. Inspect the log first: compare it with a hash that was noted elsewhere. This command then records that you accept it.
"""

_VERDICTS: Final = MappingProxyType(
    {
        0: "The log is complete and unchanged.",
        1: "The log has a fault; the message names the first one by file and line.",
    }
)


def add_parser(subparsers: Any, **described: str) -> None:
    """`audit verify [--head HASH]… [--anchor FILE | --no-anchor] [--captured] FILE…` and `audit accept`."""
    parser: ArgumentParser = subparsers.add_parser("audit", **described)
    family = parser.add_subparsers(metavar="COMMAND", required=True)
    verify = _command(family, "verify", "Find changes in an audit log.", _ABOUT, "audit verify audit.log", exits=_VERDICTS)
    verify.add_argument("files", metavar="FILE", nargs="+", help="A file of the log, the oldest first; - is standard input.")
    verify.add_argument(
        "--head",
        metavar="HASH",
        action="append",
        default=[],
        help="The hash of a record that the log must have, or a prefix of it.",
    )
    anchors = verify.add_mutually_exclusive_group()
    anchors.add_argument("--anchor", metavar="FILE", help="The anchor, which must match the end of the log.")
    anchors.add_argument(
        "--no-anchor",
        action="store_true",
        help="Verify without an anchor, and accept starts of the broker at which no anchor matched.",
    )
    verify.add_argument(
        "--captured",
        action="store_true",
        help="Verify the output of a container, which has other lines between the records and may lack the first records.",
    )
    verify.set_defaults(run=run)
    accept = _command(family, "accept", "Accept an audit log that no anchor confirms.", _ACCEPTING, "audit accept")
    accept.set_defaults(run=run_accept)


def _command(
    family: Any, name: str, about: str, description: str, example: str, *, exits: Mapping[int, str] = NO_EXITS
) -> ArgumentParser:
    from argparse import RawDescriptionHelpFormatter  # noqa: PLC0415

    parser: ArgumentParser = family.add_parser(
        name,
        help=about,
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
        examples=(f"equabot {example}",),
        exits=exits,
    )
    add_places(parser)
    parser.set_defaults(agent=None)
    return parser


def run(args: Namespace) -> int:
    """Prints one line. Raises Failure for a log that has a fault and for a file that cannot be read."""
    from equabot_broker.telemetry.audit_verification import AuditVerification  # noqa: PLC0415

    anchor = _anchor(args)
    known = None if anchor is None else _held(anchor)
    found = _verified(AuditVerification(captured=args.captured, noted=map(_hash, args.head), anchor=known), args.files)
    if anchor is not None:
        _check_end(found, anchor, known)
    if found.doubts and not args.no_anchor:
        raise Failure(
            f"{args.files[-1]}: no anchor confirms it at {_times(len(found.doubts))} ({', '.join(found.doubts)}), so"
            " records before that may have been removed. Compare the log with a noted hash (--head), then run `equabot"
            " audit accept` or use --no-anchor"
        )
    output.say(_said(found, compared=anchor is not None))
    return Exit.DONE


def run_accept(args: Namespace) -> int:
    """Prints what was accepted. Raises Failure."""
    with admin(args) as operator:
        accepted = operator.accept_audit_log()
    output.say(f"accepted, and recorded: {accepted}" if accepted else "there is nothing to accept")
    return Exit.DONE


def _anchor(args: Namespace) -> Path | None:
    """The anchor from the arguments, else from the configuration if that configuration names this log; None if neither has
    one."""
    if args.anchor:
        return Path(args.anchor)
    if args.no_anchor or args.captured or args.files[-1] == "-":
        return None
    from equabot_broker.config.load import load  # noqa: PLC0415
    from equabot_broker.schema.faults import ConfigurationFaults  # noqa: PLC0415

    try:
        config = load(config_path=args.config, run_dir=args.run_dir, environ=environment())
    except ConfigurationFaults:
        return None  # it may be the log of another machine
    path = config.audit.path
    return config.anchor_path if path is not None and path.resolve() == Path(args.files[-1]).resolve() else None


def _held(anchor: Path) -> "Head | None":
    from equabot_broker.files.reading import Unreadable, read_some  # noqa: PLC0415
    from equabot_broker.telemetry.audit_chain import Unsound, parse_anchor  # noqa: PLC0415

    try:
        return parse_anchor(read_some(anchor, limit=_LONGEST_ANCHOR).data).head
    except FileNotFoundError:
        why = "it is missing"
    except Unreadable as unreadable:
        why = f"it {unreadable.why}"
    except Unsound as unsound:
        why = unsound.message
    raise Failure(
        f"the log's anchor {anchor}: {why}. Without the anchor, a removal of the last records or of all records is not"
        " detected: compare the log with a noted hash (--head), and accept it with --no-anchor"
    )


def _check_end(found: "Summary", anchor: Path, known: "Head | None") -> None:
    """Raises Failure if the log has more records after its anchor than a crash explains. A writing broker moves the anchor."""
    from equabot_broker.telemetry.audit_chain import CRASH_SECONDS  # noqa: PLC0415

    if found.anchored is None or found.head.sequence <= found.anchored.head.sequence + 1 or _held(anchor) != known:
        return
    if found.beyond > CRASH_SECONDS:
        raise Failure(
            f"the log's anchor {anchor} is {found.head.sequence - found.anchored.head.sequence} records older than the"
            " log, so an older copy of the anchor was restored. Compare the log with a noted hash (--head), and accept"
            " it with --no-anchor"
        )


def _times(count: int) -> str:
    return "one start" if count == 1 else f"{count} starts"


def _hash(text: str) -> str:
    wanted = text.strip().lower()
    if len(wanted) < _SHORTEST_NOTE or wanted.strip("0123456789abcdef"):
        raise Failure(
            f"--head needs the hash of a record, or at least its first {_SHORTEST_NOTE} hexadecimal digits", code=Exit.USAGE
        )
    return wanted


def _verified(verifying: "AuditVerification", files: Sequence[str]) -> "Summary":
    from equabot_broker.telemetry.audit_chain import Unsound  # noqa: PLC0415

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


def _read(verifying: "AuditVerification", file: BinaryIO) -> bytes:
    """Verifies each line, and returns what follows the last newline."""
    while line := file.readline(_LONGEST_LINE):
        if not line.endswith(b"\n"):
            return line
        verifying.take(line[:-1])
    return b""


def _opened(name: str) -> BinaryIO:
    return open(0, "rb", closefd=False) if name == "-" else open(name, "rb")  # noqa: PTH123 - the caller closes it


def _said(found: "Summary", *, compared: bool) -> str:
    parts = [
        f"intact: {found.records} records from {found.first} to {found.last}",
        f"the last record is {found.head.sequence}, hash {found.head.hash}",
    ]
    if found.after.sequence:
        parts.append(f"it continues after record {found.after.sequence}, hash {found.after.hash}, of an earlier file")
    if found.lost:
        parts.append(f"{found.lost} more records could not be written")
    if found.torn:
        parts.append(f"a crash left {found.torn} incomplete")
    if found.accepted:
        parts.append(f"an operator accepted {_times(found.accepted)} that no anchor confirms")
    if found.doubts:
        parts.append(f"no anchor confirms {_times(len(found.doubts))}")
    parts.append("the anchor matches its end" if compared else "its end was not compared with an anchor")
    return "; ".join(parts)
