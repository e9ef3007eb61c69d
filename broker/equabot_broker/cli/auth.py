"""`equabot models auth`: the credentials in an agent's store. Works with and without a running broker."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from equabot_broker.cli import auth_entering, auth_login, auth_order
from equabot_broker.cli.storing import CommandContext, faults, unlist
from equabot_broker.domain.instants import rfc3339
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.provider import Mode
from equabot_broker.formats.auth_document import AuthDocument, without_entry
from equabot_broker.formats.auth_entries import entry_ids
from equabot_cli import output
from equabot_cli.arguments import add_agent, add_places
from equabot_cli.exits import NO_EXITS, Exit, Failure
from equabot_cli.output import Cell, Style
from equabot_cli.surroundings import now

if TYPE_CHECKING:
    from equabot_broker.domain.profiles import Profile

_PROVIDER = "The id or an alias of the provider."
_ABOUT = "Secrets come from a hidden prompt or from standard input, never from an argument."

_NO_TERMINAL = MappingProxyType({auth_entering.NO_TERMINAL: "Standard input is not a terminal."})


def add_parser(subparsers: Any) -> None:
    """`auth add|login|paste-token|setup-token|order|list|remove`."""
    auth: ArgumentParser = subparsers.add_parser(
        "auth", help="Store credentials, log in, and set which one is used first.", description=_ABOUT
    )
    family = auth.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = _command(
        family,
        "add",
        auth_entering.add,
        "Store a credential, and ask for what the arguments leave out.",
        "models auth add --provider openai --method api-key < key.txt",
    )
    parser.add_argument("--provider", metavar="P", help=_PROVIDER)
    parser.add_argument("--method", choices=auth_entering.METHODS, help="The kind of credential, or how to get it.")
    _profile_id(parser, "P:default")
    _expires_in(parser)

    parser = _command(
        family,
        "login",
        auth_login.run,
        "Log in to the provider, and store the login.",
        "models auth login --provider anthropic",
        exits=_NO_TERMINAL,
    )
    parser.add_argument("--provider", metavar="P", required=True, help=_PROVIDER)
    _profile_id(parser, "P:<email>, or P:default if the provider reports no email")

    parser = _command(
        family,
        "paste-token",
        auth_entering.paste_token,
        "Store a token of any provider.",
        "models auth paste-token --provider anthropic --expires-in 365d < token.txt",
    )
    parser.add_argument("--provider", metavar="P", required=True, help=_PROVIDER)
    _profile_id(parser, "P:manual")
    _expires_in(parser)

    parser = _command(
        family,
        "setup-token",
        auth_entering.setup_token,
        "Run `claude setup-token` and store its token.",
        "models auth setup-token",
        exits=_NO_TERMINAL,
    )
    parser.add_argument("--provider", metavar="P", default="anthropic", help="The provider, which must be anthropic.")
    _profile_id(parser, "anthropic:default")

    auth_order.add_parser(family)

    parser = _command(family, "list", show, "List the profiles in the store.", "models auth list --agent main")
    parser.add_argument("--provider", metavar="P", help="List only the profiles of this provider.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")

    parser = _command(family, "remove", remove, "Remove a profile from the store.", "models auth remove openai:default")
    parser.add_argument("profile", metavar="PROFILE_ID", help="The id of the profile.")


def _command(
    family: Any, name: str, run: Any, about: str, example: str, *, exits: Mapping[int, str] = NO_EXITS
) -> ArgumentParser:
    parser: ArgumentParser = family.add_parser(
        name, help=about, description=f"{about} {_ABOUT}", examples=(f"equabot {example}",), exits=exits
    )
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)
    return parser


def _profile_id(parser: ArgumentParser, default: str) -> None:
    parser.add_argument("--profile-id", metavar="ID", help=f"The id of the profile to create or replace (default: {default}).")


def _expires_in(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--expires-in",
        metavar="365d",
        type=auth_entering.lifetime,
        help="The lifetime, in ms, s, m, h or d; a plain number is in days.",
    )


def show(args: Namespace) -> int:
    """Lists the profiles in the agent's store, and those of `main`'s store, which the agent can read too."""
    context = CommandContext.of(args)
    provider = context.provider(args.provider).id if args.provider else ""
    found = [(agent, context.entries(agent)) for agent in dict.fromkeys((context.agent, MAIN))]
    own = {profile.id for profile in found[0][1].profiles}
    listed = [
        (agent, profile)
        for agent, entries in found
        for profile in entries.profiles
        if provider in ("", profile.provider) and (agent == context.agent or profile.id not in own)
    ]
    for fault in (fault for _, entries in found for fault in entries.faults):
        output.complain(fault.message)
    if args.json:
        output.document({
            "agentId": context.agent,
            "authStorePath": str(context.store.path),
            "profiles": [_described(agent, profile) for agent, profile in listed],
        })  # fmt: skip
        return Exit.DONE
    output.table(
        [
            (
                profile.id,
                profile.mode.value,
                _worth(profile),
                profile.email,
                f"(agent {agent})" if agent != context.agent else "",
            )
            for agent, profile in listed
        ],
        header=("profile", "type", "credential", "e-mail", ""),
    )
    return Exit.DONE


def _described(agent: str, profile: "Profile") -> dict[str, Any]:
    expires = profile.expires_at
    return {
        "profileId": profile.id,
        "provider": profile.provider,
        "type": profile.mode.value,
        "label": profile.secret.label() if profile.secret else None,
        "fault": profile.fault or None,
        "expiresAt": None if expires is None else rfc3339(expires),
        "email": profile.email or None,
        "agent": agent,
    }


def _worth(profile: "Profile") -> Cell:
    if profile.secret is None:
        return Cell(profile.fault, Style.BAD)
    if profile.expires_at is None:
        return Cell(profile.secret.label())
    gone = profile.expires_at <= now() and not (profile.mode is Mode.OAUTH and profile.refresh)
    when = f"{'expired' if profile.expires_at <= now() else 'expires'} {output.relative(profile.expires_at, now())}"
    return Cell(f"{profile.secret.label()} {when}", Style.BAD if gone else Style.PLAIN)


def remove(args: Namespace) -> int:
    """Removes the profile from the agent's store and from the configuration. Other sources keep their copies."""
    context = CommandContext.of(args)
    owner, colon, _ = args.profile.partition(":")
    wanted = context.profile(args.profile, context.provider(owner)) if colon else args.profile
    there = False

    def change(document: AuthDocument) -> AuthDocument:
        nonlocal there
        written = entry_ids(document, context.config.catalog).get(wanted, args.profile)
        there = written in document.entries
        return without_entry(document, written) if there else document

    with faults():
        if context.store.path.exists():
            context.store.edit(change)
    if not there:
        raise Failure(_whereabouts(context, wanted))
    output.say(f"removed {wanted} from {context.store.path}")
    unlist(context.config, wanted)
    if wanted in context.config.order.get(wanted.partition(":")[0], ()):
        output.complain(f"auth.order in {context.config.file} still names {wanted}: remove it there")
    return Exit.DONE


def _whereabouts(context: CommandContext, profile_id: str) -> str:
    """The message for a profile that is not in the store."""
    missing = f"{profile_id} is not in {context.store.path}"
    if context.agent != MAIN and any(profile.id == profile_id for profile in context.entries(MAIN).profiles):
        return f"{missing}, but in the store of {MAIN}, which {context.agent} can read: --agent {MAIN} removes it there"
    return (
        f"{missing}: `equabot models auth list` lists the profiles of the store, and `equabot models status` those of all"
        " sources"
    )
