"""`equabot lease`: acquire, renew, revoke, list and watch leases."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from equabot_cli import lease_naming, output
from equabot_cli.arguments import add_agent, add_delivery, add_places, delivery, duration
from equabot_cli.connecting import addressed, admin, broker
from equabot_cli.exits import Exit, Failure
from equabot_cli.output import Cell, Style
from equabot_cli.surroundings import now

if TYPE_CHECKING:
    from datetime import datetime

    from equabot_client import Lease, LeaseEvent

_SUCCEEDED = ("max_ttl", "shutting_down")
"""The reasons after which the command opens another lease; if the broker has stopped, that attempt reports it."""

_ROUNDING = 1.0
"""Seconds by which a lease may be shorter than requested without a warning."""
_EVENT_STYLES = {"GRANTED": Style.GOOD, "ROTATED": Style.STRONG, "EXPIRING": Style.WARN, "REVOKED": Style.BAD}


def add_parser(subparsers: Any, **described: str) -> None:
    """`lease acquire|renew|revoke|list|watch`."""
    family = subparsers.add_parser("lease", **described).add_subparsers(title="commands", metavar="COMMAND", required=True)
    what = "PROVIDER|PROFILE_ID"

    parser = _command(family, "acquire", acquire, "Acquire a lease.", "lease acquire anthropic --ttl 15m")
    parser.add_argument("what", metavar=what, help="The provider or the profile to lease.")
    parser.add_argument("--ttl", type=duration, metavar="15m", help="The lifetime (default: the broker's).")
    add_delivery(parser, "the agent's first")
    parser.add_argument("--session", metavar="NAME", help="The conversation, in which the selected profile does not change.")
    parser.add_argument("--json", action="store_true", help="Print the whole lease as JSON, with its secret.")

    parser = _command(family, "renew", renew, "Extend a lease, counted from now.", "lease renew 0198f3a2c4d1 --ttl 15m")
    parser.add_argument("id", metavar="ID", help="The id of the lease or a prefix of it (see `lease list`).")
    parser.add_argument("--ttl", type=duration, metavar="15m", help="The lifetime (default: the one first requested).")
    parser.add_argument("--json", action="store_true", help="Print the whole lease as JSON, with its secret.")

    parser = _command(
        family,
        "revoke",
        revoke,
        "End a lease, or every lease of an agent, a provider or a profile.",
        "lease revoke 0198f3a2c4d1",
        "lease revoke --agent main --provider openai",
    )
    parser.add_argument(
        "id", metavar="ID", nargs="?", default="", help="The id of the lease or a prefix of it (see `lease list`)."
    )
    parser.add_argument("--provider", metavar="NAME", help="End every lease of this provider.")
    parser.add_argument("--profile", metavar="PROFILE_ID", help="End every lease on this profile.")

    parser = _command(
        family,
        "list",
        list_all,
        "List the active leases of every agent or of one, through the admin socket.",
        "lease list --agent main",
    )
    parser.add_argument("--json", action="store_true", help="Print a JSON list of leases, without secrets.")

    parser = _command(
        family, "watch", watch, "Follow a lease until interrupted, with one line per event.", "lease watch anthropic --json"
    )
    parser.add_argument("what", metavar=what, help="The provider or the profile to lease.")
    parser.add_argument("--json", action="store_true", help="Print each event as JSON, with the secret of its lease.")


def _command(family: Any, name: str, run: Any, about: str, *examples: str) -> ArgumentParser:
    parser: ArgumentParser = family.add_parser(
        name, help=about, description=about, examples=[f"equabot {example}" for example in examples]
    )
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)
    return parser


def acquire(args: Namespace) -> int:
    """Acquires a lease, which stays active after the command has ended."""
    with broker(args) as connected:
        lease = connected.acquire(args.what, ttl=args.ttl, delivery=delivery(args), session=args.session)
        _warn_if_shorter(args, lease, since=lease.issued_at.timestamp())
        _show(lease, as_json=args.json)
        if lease.notice:
            output.complain(lease.notice)
    return Exit.DONE


def renew(args: Namespace) -> int:
    """Renews a lease of the agent."""
    lease_id = lease_naming.whole(args, args.id)
    with broker(args) as connected:
        lease = connected.renew(lease_id, ttl=args.ttl)
        _warn_if_shorter(args, lease, since=now())
        _show(lease, as_json=args.json)
    return Exit.DONE


def _warn_if_shorter(args: Namespace, lease: "Lease", *, since: float) -> None:
    """Warns about a lease that is shorter than requested: the lease itself does not show that."""
    if args.ttl is None:
        return
    asked, granted = args.ttl.total_seconds(), lease.expires_at.timestamp() - since
    if granted < asked - _ROUNDING:
        ends = lease.credential_expires_at
        by_credential = ends is not None and ends <= lease.expires_at
        why = "its credential ends then" if by_credential else "see max_ttl of the agent and of leases in the configuration"
        output.complain(f"the lease lasts {output.span(granted)}, not {output.span(asked)}: {why}")


def revoke(args: Namespace) -> int:
    """Revokes a lease, or every lease that matches, and prints which. Idempotent.

    An id without an agent may belong to any agent: the command asks the admin socket, or the agent's socket if there is no
    admin socket, as in an agent's container.
    """
    if not args.id:
        return _revoke_matching(args)
    if args.provider or args.profile:
        raise Failure("name a lease, or --agent, --provider and --profile, not both", code=Exit.USAGE)
    lease_id = lease_naming.whole(args, args.id)
    if args.agent is not None or addressed(args):
        ended = _revoke_as_agent(args, lease_id)
    else:
        ended = _revoke_as_operator(args, lease_id)
    output.say(f"lease {lease_id} is revoked" if ended else f"no active lease {lease_id}: nothing was revoked")
    return Exit.DONE


def _revoke_matching(args: Namespace) -> int:
    if not (args.agent or args.provider or args.profile):
        raise Failure("name the leases: an id, --agent, --provider or --profile", code=Exit.USAGE)
    with admin(args) as connected:
        count = connected.revoke_leases(agent=args.agent or "", provider=args.provider or "", profile=args.profile or "")
    output.say("1 lease is revoked" if count == 1 else f"{count} leases are revoked")
    return Exit.DONE


def _revoke_as_agent(args: Namespace, lease_id: str) -> bool:
    with broker(args) as connected:
        return connected.revoke(lease_id)


def _revoke_as_operator(args: Namespace, lease_id: str) -> bool:
    from equabot_client.errors import BrokerUnavailable  # noqa: PLC0415

    with admin(args) as connected:
        try:
            return connected.revoke_leases(lease_id=lease_id) > 0
        except BrokerUnavailable:
            pass
    return _revoke_as_agent(args, lease_id)


def list_all(args: Namespace) -> int:
    """Lists the active leases, the oldest first."""
    with admin(args) as connected:
        living = connected.list_leases()
        leases = connected.list_leases(agent=args.agent) if args.agent else living  # the broker knows its agents
    if args.json:
        output.document([_plain(lease) for lease in leases])
        return Exit.DONE
    if not leases and output.for_people():
        output.say(f"no active lease of agent {args.agent}" if args.agent else "no active lease")
    # A script gets the whole id, which stays unambiguous.
    shown = lease_naming.shortened([lease.id for lease in living]) if output.for_people() else {}
    rows = [
        (
            shown.get(lease.id, lease.id),
            lease.agent,
            lease.profile,
            lease.delivery,
            output.relative(lease.expires_at.timestamp(), now()),
            "streaming" if lease.streaming else "",
            lease.session,
        )
        for lease in leases
    ]
    output.table(rows, header=("lease", "agent", "profile", "delivery", "expires", "held by", "session"))
    return Exit.DONE


def watch(args: Namespace) -> int:
    """Holds a lease on a stream and prints its events. It opens another lease when one expires."""
    with broker(args) as connected:
        while True:
            reason = ""
            for event in connected.stream(args.what):
                _tell(event, as_json=args.json)
                reason = event.reason
            if reason not in _SUCCEEDED:
                raise Failure(f"the lease has ended: {reason or 'the broker closed the stream'}")


def _tell(event: "LeaseEvent", *, as_json: bool) -> None:
    lease = event.lease
    if as_json:
        shown = {"kind": event.kind.name, "lease_id": event.lease_id, "reason": event.reason}
        output.document(shown | {"lease": None if lease is None else _revealed(lease)}, indent=None)
        return
    row: list[Cell | str] = [Cell(event.kind.name, _EVENT_STYLES.get(event.kind.name, Style.PLAIN)), event.lease_id]
    if lease is not None:
        ends = output.relative(lease.expires_at.timestamp(), now())
        row += [lease.profile, f"version {lease.version}", f"expires {ends}"]
    output.table([[*row, event.reason]])


def _show(lease: "Lease", *, as_json: bool) -> None:
    if as_json:
        output.document(_revealed(lease))
        return
    rows: list[tuple[Cell, str | Cell]] = [
        (Cell(name, Style.FAINT), value)
        for name, value in (
            ("lease", Cell(lease.id, Style.STRONG)),
            ("profile", f"{lease.profile} ({lease.mode}, {lease.delivery})"),
            ("secret", f"hidden; `equabot key {lease.profile}` prints it"),
            ("environment", ", ".join(lease.env)),
            ("headers", ", ".join(lease.headers)),
            ("base URL", lease.base_url),
            ("expires", _when(lease.expires_at)),
            ("at the latest", _when(lease.max_expires_at)),
            ("credential ends", _when(lease.credential_expires_at)),
        )
        if value
    ]
    output.table(rows)


def _when(instant: "datetime | None") -> str:
    return "" if instant is None else f"{output.relative(instant.timestamp(), now())} ({_rfc3339(instant)})"


def _revealed(lease: "Lease") -> dict[str, Any]:
    return _plain(lease) | {"secret": lease.secret.reveal(), "headers": dict(lease.headers), "env": dict(lease.env)}


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields by their names on the wire, instants as RFC 3339."""
    from dataclasses import fields  # noqa: PLC0415
    from datetime import datetime  # noqa: PLC0415

    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: _rfc3339(v) if isinstance(v, datetime) else v for name, v in values.items()}


def _rfc3339(instant: "datetime") -> str:
    from datetime import UTC  # noqa: PLC0415

    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
