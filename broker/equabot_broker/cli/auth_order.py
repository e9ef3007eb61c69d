"""`equabot models auth order`: the order in which an agent tries a provider's profiles. The agent's store holds it."""

from argparse import ArgumentParser, Namespace
from typing import Any

from equabot_broker.cli.storing import CommandContext, faults, stored_order
from equabot_broker.domain.known_names import meant
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Provider
from equabot_broker.formats.auth_entries import with_order_of
from equabot_cli import output
from equabot_cli.arguments import add_agent, add_places
from equabot_cli.exits import Exit, Failure


def add_parser(subparsers: Any) -> None:
    """`order get|set|clear`."""
    about = "Show or set the order in which an agent tries profiles."
    order: ArgumentParser = subparsers.add_parser("order", help=about, description=about)
    family = order.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = _command(family, "get", get, "Print the stored order of the agent.", "models auth order get --provider anthropic")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser = _command(
        family,
        "set",
        put,
        "Try only these profiles, in this order.",
        "models auth order set --provider anthropic anthropic:work anthropic:env",
    )
    parser.add_argument("profiles", metavar="PROFILE_ID", nargs="+", help="The ids of the profiles, the first one first.")
    _command(family, "clear", clear, "Remove the stored order of the agent.", "models auth order clear --provider anthropic")


def _command(family: Any, name: str, run: Any, about: str, *examples: str) -> ArgumentParser:
    parser: ArgumentParser = family.add_parser(
        name, help=about, description=about, examples=[f"equabot {example}" for example in examples]
    )
    parser.add_argument("--provider", metavar="P", required=True, help="The id or an alias of the provider.")
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)
    return parser


def get(args: Namespace) -> int:
    """Prints the order, and which file holds it."""
    context, provider = _named(args)
    _print_order(context, provider, as_json=args.json)
    return Exit.DONE


def put(args: Namespace) -> int:
    """Stores the order. Raises Failure for a profile that does not exist, is of another provider, or is named twice."""
    context, provider = _named(args)
    wanted = tuple(context.profile(written, provider) for written in args.profiles)
    if len(set(wanted)) < len(wanted):
        raise Failure("a profile is named twice: name each profile once", code=Exit.USAGE)
    unknown = _unknown(args, context, provider, wanted)
    if unknown:
        raise Failure(unknown)
    _edit(context, provider, wanted)
    _print_order(context, provider, as_json=False)
    return Exit.DONE


def clear(args: Namespace) -> int:
    """Removes the order. Idempotent."""
    context, provider = _named(args)
    if stored_order(context, provider.id):
        _edit(context, provider, ())
    _print_order(context, provider, as_json=False)
    return Exit.DONE


def _named(args: Namespace) -> tuple[CommandContext, Provider]:
    context = CommandContext.of(args)
    return context, context.provider(args.provider)


def _edit(context: CommandContext, provider: Provider, ids: tuple[str, ...]) -> None:
    with faults():
        context.store.edit(lambda document: with_order_of(document, provider.id, ids, context.config.catalog))


def _unknown(args: Namespace, context: CommandContext, provider: Provider, wanted: tuple[str, ...]) -> str:
    """The message for profiles that do not exist, with the ones that do; empty if all exist."""
    from equabot_broker.cli.status_reading import read_status  # noqa: PLC0415

    stored = {profile.id for agent in (context.agent, MAIN) for profile in context.entries(agent).profiles}
    if stored.issuperset(wanted):
        return ""
    known = stored | {p.id for p in read_status(args, context.config, context.agent).profiles if p.state != State.MISSING}
    known = {profile for profile in known if profile.startswith(f"{provider.id}:")}
    missing = [profile for profile in wanted if profile not in known]
    if not missing:
        return ""
    there = (
        f"known profiles: {', '.join(sorted(known))}"
        if known
        else (f"{provider.id} has no profile: `equabot models auth add` stores one")
    )
    return f"profile {', '.join(missing)} does not exist; {there}{meant(missing[0], known)}"


def _print_order(context: CommandContext, provider: Provider, *, as_json: bool) -> None:
    order = stored_order(context, provider.id)
    if as_json:
        output.document({
            "agentId": context.agent,
            "agentDir": str(context.store.path.parent),
            "provider": provider.id,
            "authStorePath": str(context.store.path),
            "order": list(order) or None,
        })  # fmt: skip
        return
    configured = ", ".join(context.config.order.get(provider.id, ()))
    output.table([
        ("Agent", context.agent),
        ("Provider", provider.id),
        ("Profile store", str(context.store.path)),
        ("Order", ", ".join(order) or "not set"),
        *([("Configured", f"{configured}{' (not used)' if order else ''}")] if configured else []),
    ])  # fmt: skip
