"""`equabot reload`: makes the running broker read its configuration again, through the admin socket and without a restart."""

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.connecting import admin, refusals
from equabot_cli.exits import Exit, Failure

if TYPE_CHECKING:
    from equabot_client.admin import Reload


def add_parser(subparsers: Any, **described: str) -> None:
    """`reload [--json]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "reload",
        description="Apply the configuration as a whole, or refuse it as a whole. The exit code is 64 if the configuration has"
        " faults, and 1 if it needs a restart or cannot be applied. Leases that it still grants do not end. SIGHUP does the"
        " same.",
        examples=("equabot reload",),
        exits={
            0: "The configuration is in effect.",
            1: "The configuration needs a restart, or cannot be applied. Nothing has changed.",
            64: "The configuration has faults, which are all listed. Nothing has changed.",
        },
        **described,
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    add_places(parser)
    parser.set_defaults(run=run, agent=None)


def run(args: Namespace) -> int:
    """Prints what changed, or each fault on its own line on standard error."""
    done = _reloaded(args)
    if args.json:
        output.document(asdict(done))
    for fault in done.faults:
        output.fault(fault)
    if done.refusal:
        output.fault(done.refusal)
    if done.faults or done.refusal:
        return Exit.USAGE if done.faults else Exit.FAILED
    if not args.json:
        ended = "" if not done.revoked else f"; {done.revoked} {'lease' if done.revoked == 1 else 'leases'} ended"
        output.say(f"reloaded: {', '.join(done.changes) or 'nothing differs'}{ended}")
    return Exit.DONE


def _reloaded(args: Namespace) -> "Reload":
    """The answer of the broker. If the configuration file has faults, the command finds the socket without it. Raises
    Failure."""
    try:
        with admin(args) as connected:
            return connected.reload()
    except Failure as failure:
        if failure.code != Exit.USAGE:
            raise
        wrong = failure
    from equabot_client.admin import connect  # noqa: PLC0415

    try:
        with refusals(args), connect(str(Path(args.run_dir, "admin", "broker.sock")) if args.run_dir else None) as connected:
            return connected.reload()
    except Failure:
        raise wrong from None
