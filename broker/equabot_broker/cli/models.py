"""`equabot models status`: the state of an agent's credentials. Works with and without a running broker."""

from argparse import ArgumentParser, Namespace
from typing import Any

from equabot_broker.cli import auth
from equabot_broker.cli.arguments import chosen_agent, configuration
from equabot_cli.arguments import add_agent, add_places
from equabot_cli.exits import Exit


def add_parser(subparsers: Any, **described: str) -> None:
    """`models status [--check] [--json] [--plain] [--agent A] [--probe]`, and `models auth …`."""
    family = subparsers.add_parser("models", **described).add_subparsers(title="commands", metavar="COMMAND", required=True)
    about = "Show which credentials there are, when they expire, and which one is next."
    parser: ArgumentParser = family.add_parser(
        "status",
        help=about,
        description=about,
        examples=("equabot models status", "equabot models status --check --agent main"),
        exits={
            1: "With --check: a credential is expired, missing, invalid or rejected, or needs a login.",
            2: "With --check: a credential is expiring.",
        },
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="Exit with 1 if a credential is expired or missing, 2 if one is expiring, and 0 if all are valid.",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="Print one JSON document.")
    form.add_argument("--plain", action="store_true", help="Print one line per profile, with tabs between the columns.")
    parser.add_argument("--probe", action="store_true", help="Test each credential with one small call to its provider.")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)
    auth.add_parser(family)


def run(args: Namespace) -> int:
    """Prints the report. With `--check`, returns its verdict, which also fails for a credential that its provider refuses."""
    config = configuration(args)
    agent = chosen_agent(args, config)

    from equabot_broker.cli import probing, status_views  # noqa: PLC0415
    from equabot_broker.cli.status_reading import read_status  # noqa: PLC0415
    from equabot_broker.cli.status_screen import show_screen  # noqa: PLC0415
    from equabot_cli import output  # noqa: PLC0415

    report = read_status(args, config, agent)
    probed = probing.probe_all(args, report) if args.probe else []
    if args.json:
        document = status_views.document(report)
        if args.probe:
            document["auth"]["probes"] = probing.document(probed)
        output.document(document)
    elif args.plain:
        status_views.show_plain(report)
        probing.show_plain(probed)
    else:
        if output.for_people():
            show_screen(report)
        else:
            status_views.show(report)
        if args.probe:
            probing.show(probed)
    if not args.check:
        return Exit.DONE
    return Exit.FAILED if probing.refused(probed, report) else report.verdict()
