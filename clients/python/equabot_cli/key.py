"""`equabot key`: prints a secret alone on standard output, for `apiKeyHelper` and scripts.

A raw lease is revoked as soon as its secret is written. No process would renew it, the secret cannot be taken back, and a
script that asks in a loop would use up its agent's leases. The broker's log has the grant.

A brokered token is valid only as long as its lease, which therefore stays until it expires. The next call gets the same token
and the same lease, so a helper that runs every few seconds does not use up its agent's leases either.
"""

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from typing import Any

from equabot_cli.arguments import add_agent, add_delivery, add_places, delivery
from equabot_cli.connecting import broker
from equabot_cli.exits import Exit
from equabot_cli.output import complain
from equabot_cli.streams import write_exactly


def add_parser(subparsers: Any, **described: str) -> None:
    """`key PROVIDER|PROFILE_ID [--delivery D] [--agent A]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "key", examples=("equabot key anthropic", "equabot key anthropic:work --delivery raw"), **described
    )
    parser.add_argument("what", metavar="PROVIDER|PROFILE_ID", help="The provider or the profile to lease.")
    add_delivery(parser, "the agent's first")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Prints the secret and a newline."""
    from equabot_client.errors import EquabotError  # noqa: PLC0415

    with broker(args) as connected:
        lease = connected.acquire(args.what, delivery=delivery(args), holder=f"key {args.what}")
        try:
            write_exactly(lease.secret.reveal())
            if lease.notice:
                complain(lease.notice)
        finally:
            if lease.delivery == "raw":
                with suppress(EquabotError):  # then the lease expires by itself
                    connected.revoke(lease)
    return Exit.DONE
