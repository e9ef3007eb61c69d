"""`equabot onboard`: sets up a first credential. It asks at a terminal, and takes flags otherwise."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

from equabot_broker.cli import auth_entering
from equabot_broker.cli.prompting import choose, interactive, secret
from equabot_broker.cli.storing import CommandContext, cleaned, faults, record
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.provider import Mode, Provider
from equabot_cli import output
from equabot_cli.arguments import add_agent, add_places
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import now

CHOICES: Final = {
    "api-key": "Anthropic API key (recommended)",
    "setup-token": "Anthropic token: run `claude setup-token` here",
    "token": "Anthropic token: paste an existing one",
    "claude-cli": "the login of Claude Code on this host",
    "openai": "OpenAI API key",
    "openrouter": "OpenRouter API key",
    "skip": "skip for now",
}
STORE, ENV = PLACES = ("store", "env")

_CLAUDE: Final = "anthropic:claude-cli"
_KEYS: Final = {"api-key": "anthropic", "openai": "openai", "openrouter": "openrouter"}


def add_parser(subparsers: Any, **described: str) -> None:
    """`onboard [--auth-choice C] [--store-in store|env] [--profile-id ID] [--expires-in 365d] [--agent A]`."""
    parser: ArgumentParser = subparsers.add_parser(
        "onboard",
        description="Store a first credential. At a terminal the command asks for it. Without a terminal, set --auth-choice and"
        " pass the secret on standard input, never as an argument.",
        examples=("equabot onboard", "equabot onboard --auth-choice openai < key.txt"),
        **described,
    )
    parser.add_argument("--auth-choice", choices=CHOICES, help="The kind of credential to set up.")
    parser.add_argument("--store-in", choices=PLACES, help="Where to store an API key: the agent's store or ~/.equabot/.env.")
    parser.add_argument("--profile-id", metavar="ID", help="The id of the profile to create or replace.")
    parser.add_argument(
        "--expires-in",
        metavar="365d",
        type=auth_entering.lifetime,
        help="The lifetime of a token, in ms, s, m, h or d; a plain number is in days.",
    )
    add_agent(parser)
    add_places(parser)
    parser.set_defaults(run=run)


def run(args: Namespace) -> int:
    """Stores the chosen credential, and prints the next steps."""
    if not args.auth_choice and not interactive():
        raise Failure(
            "standard input is not a terminal: name what to set up with --auth-choice, and give the secret on standard input",
            code=Exit.USAGE,
        )
    context = CommandContext.of(args)
    choice = args.auth_choice or choose("What to set up", CHOICES)
    if choice in _KEYS:
        _key(args, context, context.provider(_KEYS[choice]))
    elif choice == "claude-cli":
        _claude(context)
    elif choice == "setup-token":
        auth_entering.setup_token(_of_anthropic(args))
    elif choice == "token":
        auth_entering.paste_token(_of_anthropic(args))
    output.say("`equabot models status` shows credentials, `equabot doctor` finds problems, `equabot serve` runs the broker.")
    return Exit.DONE


def _of_anthropic(args: Namespace) -> Namespace:
    args.provider = "anthropic"
    return args


def _key(args: Namespace, context: CommandContext, provider: Provider) -> None:
    place = args.store_in or (_asked_place(context) if interactive() else STORE)
    if place == STORE:
        profile_id = context.profile(args.profile_id or f"{provider.id}:default", provider)
        auth_entering.add_key(context, provider, profile_id)
        return
    if args.profile_id:
        raise Failure(
            f"--profile-id applies to the store only: the profile of a key in .env is {provider.id}:dotenv", code=Exit.USAGE
        )
    _assign(context, provider)


def _asked_place(context: CommandContext) -> str:
    about = {STORE: f"the store of agent {context.agent}", ENV: f"{_dotenv(context)}, for a broker to read"}
    return choose("Where to store it", about)


def _assign(context: CommandContext, provider: Provider) -> None:
    """Writes a key to `.env`. Raises Failure, and then leaves the file unchanged."""
    from equabot_broker.storage.dotenv_file import assign  # noqa: PLC0415
    from equabot_broker.storage.edited_file import Unwritable  # noqa: PLC0415

    name = next(env.name for env in provider.env_names if env.mode is Mode.API_KEY)
    key = cleaned(secret(f"API key of {provider.id}"), provider, Mode.API_KEY, context)
    try:
        changed = assign(_dotenv(context), name, key)
    except Unwritable as unwritable:
        message = str(unwritable)
    else:
        output.say(f"{name} is {'set' if changed else 'unchanged'} in {_dotenv(context)}")
        return
    raise Failure(message)


def _dotenv(context: CommandContext) -> Path:
    """The `.env` file that the broker reads."""
    paths = [spec.options["path"] for spec in context.config.sources if spec.kind == "dotenv"]
    if not paths:
        raise Failure("the configuration has no dotenv source: add dotenv to sources, or use --store-in store")
    return Path(paths[0])


def _claude(context: CommandContext) -> None:
    """Copies the login of Claude Code. Raises Failure if there is no valid one."""
    from equabot_broker.bootstrap.stores import sync_claude_login  # noqa: PLC0415

    with faults():
        copied = sync_claude_login(context.config)
    login = next((profile for profile in context.entries(MAIN).profiles if profile.id == _CLAUDE), None)
    if login is None or login.expires_at is None or login.expires_at <= now():
        paths = [str(spec.options["path"]) for spec in context.config.sources if spec.kind == "claude_cli"]
        where = paths[0] if paths else "the sources of the configuration, which do not include claude_cli"
        how = "log in with `claude`, or run `equabot models auth setup-token`"
        raise Failure(f"{where} has no valid login of Claude Code: {how}")
    until = output.relative(login.expires_at, now())
    output.say(
        f"{_CLAUDE} ({login.mode}, expires {until}) is {'copied into' if copied else 'in'} {context.store_of(MAIN).path}"
    )
    record(context.config, _CLAUDE, provider="anthropic", mode=Mode.OAUTH)
