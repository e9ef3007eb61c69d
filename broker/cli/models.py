"""`equabot models status`: which credentials an agent has, and how they fare. With a broker or without one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from broker.cli.arguments import add_agent, add_places, configuration
from broker.cli.connecting import addressed, admin, broker
from broker.cli.exits import Exit, Failure
from broker.cli.surroundings import now

if TYPE_CHECKING:
    from broker.cli.status_report import Report
    from broker.config.model import Config
    from broker.domain.statuses import ProfileStatus
    from equabot_client import Profile

_FAULTS_SHOWN = 20


def add_parser(subparsers: Any, **described: str) -> None:
    """`models status [--check] [--json] [--plain] [--agent A] [--probe]`."""
    family = subparsers.add_parser("models", **described).add_subparsers(title="commands", metavar="COMMAND", required=True)
    about = "which credentials there are, when they end, and which is next"
    parser: ArgumentParser = family.add_parser("status", help=about, description=about[0].upper() + about[1:] + ".")
    parser.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 when one is expired or missing, 2 when one is expiring, 0 when all is well",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--plain", action="store_true", help="a line a profile, columns parted by tabs")
    parser.add_argument("--probe", action="store_true", help="try each credential on its provider (not in this version)")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Prints the report; with `--check` returns its verdict."""
    if args.probe:
        raise Failure("--probe is not in this version: no request is made to a provider yet", code=Exit.USAGE)
    config = configuration(args)
    agent = args.agent or "main"
    if agent not in config.policies.agents:
        raise Failure(f"agent {agent!r} is not configured: add it to agents", code=Exit.USAGE)

    from broker.cli import output, status_views  # noqa: PLC0415

    report = _from_broker(args, config, agent) or _surveyed(config, agent)
    if args.json:
        output.document(status_views.document(report))
    elif args.plain:
        status_views.show_plain(report)
    else:
        status_views.show(report)
    return report.verdict() if args.check else Exit.DONE


def _from_broker(args: Namespace, config: "Config", agent: str) -> "Report | None":
    """What a running broker says: through the admin socket, else through the agent's. None when there is none."""
    from broker.cli.status_report import Report, Trouble  # noqa: PLC0415
    from equabot_client.errors import BrokerUnavailable  # noqa: PLC0415

    if not addressed(args):
        with admin(args) as operator, suppress(BrokerUnavailable):
            found = _told(operator.list_profiles(agent=agent).get(agent, ()))
            troubles = [Trouble(source.name, source.fault) for source in operator.sources() if source.fault]
            return Report(config=config, agent=agent, profiles=found, troubles=troubles, broker=operator.address, now=now())
    with broker(args) as connected, suppress(BrokerUnavailable):
        found = _told(connected.list_profiles())
        return Report(config=config, agent=agent, profiles=found, troubles=[], broker=connected.address, now=now())
    return None


def _surveyed(config: "Config", agent: str) -> "Report":
    """What a broker would say if one ran: every source is read once."""
    import asyncio  # noqa: PLC0415

    from broker.bootstrap import survey  # noqa: PLC0415
    from broker.cli.status_report import Report, Trouble  # noqa: PLC0415

    found = asyncio.run(survey(config))
    faults = ((source.name, source.faults()[:_FAULTS_SHOWN]) for source in found.sources)
    troubles = [Trouble(name, "; ".join(fault.message for fault in shown)) for name, shown in faults if shown]
    return Report(config=config, agent=agent, profiles=found.statuses.get(agent, []), troubles=troubles, broker="", now=now())


def _told(profiles: Iterable["Profile"]) -> "list[ProfileStatus]":
    """The client library's profiles in the domain's words."""
    from dataclasses import fields  # noqa: PLC0415

    from broker.domain.statuses import ProfileStatus  # noqa: PLC0415

    names = [field.name for field in fields(ProfileStatus)]
    return [ProfileStatus(**{name: _epoch(getattr(profile, name)) for name in names}) for profile in profiles]


def _epoch(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    return 0.0 if value is None else value
