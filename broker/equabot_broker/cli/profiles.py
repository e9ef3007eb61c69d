"""`equabot profile`: clears the cooldown, the disable and the rejection of a profile.

It asks the admin socket. Without a running broker it changes the stored state.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, Final

from equabot_broker.cli.arguments import configuration
from equabot_cli import output
from equabot_cli.arguments import add_places
from equabot_cli.connecting import admin
from equabot_cli.exits import Exit, Failure

_WORDS: Final = {"cooldown": "its cooldown", "disable": "its billing disable", "rejection": "its rejection"}


def add_parser(subparsers: Any, **described: str) -> None:
    """`profile clear`."""
    family = subparsers.add_parser("profile", **described).add_subparsers(title="commands", metavar="COMMAND", required=True)
    about = "Clear the cooldown, the billing disable and the rejection of a profile, for every agent."
    parser: ArgumentParser = family.add_parser(
        "clear",
        help=about,
        description=f"{about} A running broker applies this at once; without one, the command changes the stored state.",
        examples=("equabot profile clear anthropic:work",),
    )
    parser.add_argument("id", metavar="PROFILE_ID", help="The id of the profile.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    add_places(parser)
    parser.set_defaults(run=clear, agent=None)


def clear(args: Namespace) -> int:
    """Clears a profile. Idempotent."""
    ended, running = clear_profile(args, args.id)
    if args.json:
        output.document({"profile": args.id, "ended": list(ended), "broker": running})
        return Exit.DONE
    what = " and ".join(_WORDS.get(word, word) for word in ended)
    where = "" if running else " (no broker runs: the stored state has changed)" if ended else " (no broker runs)"
    output.say(f"profile {args.id}: {f'{what} ended' if ended else 'no cooldown, disable or rejection to clear'}{where}")
    return Exit.DONE


def clear_profile(args: Namespace, profile: str, *, version: int = 0) -> tuple[Sequence[str], bool]:
    """Ends the cooldown, disable and rejection of a profile, if a running broker has that `version` of it (0: any). Returns
    what ended, and whether a broker runs. Raises Failure."""
    from equabot_client.errors import BrokerUnavailable  # noqa: PLC0415

    with admin(args) as connected:
        try:
            return connected.clear_profile(profile, version=version), True
        except BrokerUnavailable:
            pass
    from equabot_broker.bootstrap.clear_usage import clear_stored  # noqa: PLC0415
    from equabot_broker.domain.errors import BrokerError  # noqa: PLC0415
    from equabot_broker.ports import StoreFault  # noqa: PLC0415

    config = configuration(args)
    try:
        provider, colon, name = profile.partition(":")
        known = config.catalog.normalise(provider) or provider
        return clear_stored(config, f"{known}{colon}{name}"), False
    except BrokerError as refused:
        raise Failure(f"{refused.reason}: {refused.message}") from None
    except StoreFault as fault:
        raise Failure(str(fault)) from None
