"""`equabot lease`: acquire, renew, revoke, list and watch leases."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from broker.cli import output
from broker.cli.arguments import add_agent, add_delivery, add_places, delivery, duration
from broker.cli.connecting import addressed, admin, broker
from broker.cli.exits import Exit, Failure
from broker.cli.output import Cell, Style
from broker.cli.surroundings import now

if TYPE_CHECKING:
    from datetime import datetime

    from equabot_client import Lease, LeaseEvent

_SUCCEEDED = ("max_ttl", "shutting_down")
"""Ends of a lease after which another may be had; when the broker is gone for good, asking for it says so."""

_EVENT_STYLES = {"GRANTED": Style.GOOD, "ROTATED": Style.STRONG, "EXPIRING": Style.WARN, "REVOKED": Style.BAD}


def add_parser(subparsers: Any, **described: str) -> None:
    """`lease acquire|renew|revoke|list|watch`."""
    family = subparsers.add_parser("lease", **described).add_subparsers(title="commands", metavar="COMMAND", required=True)
    what = "PROVIDER|PROFILE_ID"

    parser = _command(family, "acquire", acquire, "ask for a lease")
    parser.add_argument("what", metavar=what)
    parser.add_argument("--ttl", type=duration, metavar="15m", help="how long (default: the broker's)")
    add_delivery(parser, "default: EQUABOT_DELIVERY, else the agent's first")
    parser.add_argument("--session", metavar="NAME", help="the conversation, within which a choice stays")
    parser.add_argument("--json", action="store_true", help="the whole lease, its secret included")

    parser = _command(family, "renew", renew, "extend a lease, counting from now")
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--ttl", type=duration, metavar="15m", help="how long (default: as first asked)")
    parser.add_argument("--json", action="store_true", help="the whole lease, its secret included")

    parser = _command(family, "revoke", revoke, "end a lease")
    parser.add_argument("id", metavar="ID")

    parser = _command(family, "list", list_all, "the living leases of every agent, or of one (asks the admin socket)")
    parser.add_argument("--json", action="store_true", help="a list of leases, without secrets")

    parser = _command(family, "watch", watch, "follow a lease: one line an event, until interrupted")
    parser.add_argument("what", metavar=what)
    parser.add_argument("--json", action="store_true", help="each event as JSON, its lease's secret included")


def _command(family: Any, name: str, run: Any, about: str) -> ArgumentParser:
    parser: ArgumentParser = family.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)
    return parser


def acquire(args: Namespace) -> int:
    """Acquires a lease that lives on after the command has ended."""
    with broker(args) as connected:
        lease = connected.acquire(args.what, ttl=args.ttl, delivery=delivery(args), session=args.session)
        _show(lease, as_json=args.json)
        if lease.notice:
            output.complain(lease.notice)
    return Exit.DONE


def renew(args: Namespace) -> int:
    """Renews a lease of the agent."""
    with broker(args) as connected:
        _show(connected.renew(args.id, ttl=args.ttl), as_json=args.json)
    return Exit.DONE


def revoke(args: Namespace) -> int:
    """Revokes a lease. Idempotent.

    Without a word about which agent it is, any agent's: through the admin socket, unless that is not there, as in an agent's
    container.
    """
    if args.agent is not None or addressed(args) or not _revoke_as_operator(args):
        with broker(args) as connected:
            connected.revoke(args.id)
    return Exit.DONE


def _revoke_as_operator(args: Namespace) -> bool:
    from equabot_client.errors import BrokerUnavailable  # noqa: PLC0415

    with admin(args) as connected:
        try:
            connected.revoke_leases(lease_id=args.id)
        except BrokerUnavailable:
            return False
    return True


def list_all(args: Namespace) -> int:
    """Lists the living leases, oldest first."""
    with admin(args) as connected:
        leases = connected.list_leases(agent=args.agent or "")
    if args.json:
        output.document([_plain(lease) for lease in leases])
        return Exit.DONE
    rows = [
        (
            lease.id,
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
    """Holds a lease on a stream and tells what happens to it, opening another when it ends by itself."""
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
    return "" if instant is None else f"{output.relative(instant.timestamp(), now())} ({output.rfc3339(instant.timestamp())})"


def _revealed(lease: "Lease") -> dict[str, Any]:
    return _plain(lease) | {"secret": lease.secret.reveal(), "headers": dict(lease.headers), "env": dict(lease.env)}


def _plain(record: Any) -> dict[str, Any]:
    """A record's fields by their names on the wire, instants as RFC 3339."""
    from dataclasses import fields  # noqa: PLC0415
    from datetime import datetime  # noqa: PLC0415

    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: output.rfc3339(v.timestamp()) if isinstance(v, datetime) else v for name, v in values.items()}
