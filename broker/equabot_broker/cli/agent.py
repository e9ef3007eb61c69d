"""`equabot agent`: lists, suspends and resumes agents through the admin socket."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from equabot_broker.domain.instants import rfc3339
from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.connecting import admin
from equabot_cli.exits import Exit
from equabot_cli.output import Cell, Style
from equabot_cli.surroundings import now

if TYPE_CHECKING:
    from equabot_client.admin import AgentStatus


def add_parser(subparsers: Any, **described: str) -> None:
    """`agent list|suspend|resume`."""
    family = subparsers.add_parser("agent", **described).add_subparsers(title="commands", metavar="COMMAND", required=True)

    _command(family, "list", list_all, "List every agent with its state, its leases and its policy.", "agent list")

    parser = _command(
        family,
        "suspend",
        suspend,
        "End the leases of an agent and refuse all its requests until it is resumed.",
        'agent suspend worker --reason "leaked its token"',
    )
    parser.add_argument("name", metavar="AGENT", help="The name of the agent.")
    parser.add_argument(
        "--reason", default="", metavar="TEXT", help="The reason, for other operators; the agent does not see it."
    )

    parser = _command(family, "resume", resume, "End the suspension of an agent.", "agent resume worker")
    parser.add_argument("name", metavar="AGENT", help="The name of the agent.")


def _command(family: Any, name: str, run: Any, about: str, *examples: str) -> ArgumentParser:
    parser: ArgumentParser = family.add_parser(
        name, help=about, description=about, examples=[f"equabot {example}" for example in examples]
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    add_places(parser)
    parser.set_defaults(run=run, agent=None)
    return parser


def list_all(args: Namespace) -> int:
    """Lists the agents, by name."""
    with admin(args) as connected:
        agents = connected.list_agents()
    if args.json:
        output.document([_plain(agent) for agent in agents])
        return Exit.DONE
    header = ("agent", "state", "leases", "streams", "providers", "deliveries", "since", "reason")
    output.table(map(_row, agents), header=header)
    return Exit.DONE


def suspend(args: Namespace) -> int:
    """Suspends an agent. Idempotent."""
    with admin(args) as connected:
        agent, revoked = connected.suspend_agent(args.name, reason=args.reason)
    if args.json:
        output.document(_plain(agent) | {"revoked": revoked})
    else:
        ended = "1 lease" if revoked == 1 else f"{revoked} leases"
        output.say(f"agent {agent.agent} is suspended; {ended} ended. `equabot agent resume {agent.agent}` resumes it")
    return Exit.DONE


def resume(args: Namespace) -> int:
    """Resumes an agent. Idempotent."""
    with admin(args) as connected:
        agent, resumed = connected.resume_agent(args.name)
    if args.json:
        output.document(_plain(agent) | {"resumed": resumed})
    else:
        output.say(f"agent {agent.agent} {'is resumed' if resumed else 'was not suspended'}")
    return Exit.DONE


def _row(agent: "AgentStatus") -> Sequence[Cell | str]:
    active = Cell("active", Style.GOOD) if agent.configured else Cell("not configured", Style.FAINT)
    return [
        Cell(agent.agent, Style.STRONG),
        Cell("suspended", Style.BAD) if agent.suspended else active,
        str(agent.leases),
        str(agent.streams),
        ", ".join(agent.providers),
        ", ".join(agent.deliveries),
        "" if agent.since is None else output.relative(agent.since.timestamp(), now()),
        agent.reason,
    ]


def _plain(agent: "AgentStatus") -> dict[str, Any]:
    """The agent's fields by their names on the wire."""
    since = None if agent.since is None else rfc3339(agent.since.timestamp())
    return asdict(agent) | {"since": since}
