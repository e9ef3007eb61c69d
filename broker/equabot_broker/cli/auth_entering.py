"""`equabot models auth add`, `paste-token` and `setup-token`: store a credential that the user enters."""

import re
from argparse import ArgumentTypeError, Namespace
from typing import Final

from equabot_broker.cli.prompting import ask, choose, confirm, interactive, secret
from equabot_broker.cli.storing import CommandContext, cleaned, store_credential
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import entry_of_key, entry_of_token
from equabot_cli import child, output
from equabot_cli.exits import Exit, Failure
from equabot_cli.surroundings import environment, now

API_KEY, TOKEN, SETUP_TOKEN, LOGIN = METHODS = ("api-key", "token", "setup-token", "login")
"""The kinds of credential that can be stored, and the ways to get one."""

NO_TERMINAL: Final = 2
"""The exit code of `setup-token` and `login` without a terminal."""

_ANTHROPIC: Final = "anthropic"
_ABOUT: Final = {
    API_KEY: "an API key from the provider's console",
    TOKEN: "a token that you have",
    SETUP_TOKEN: "a long-lived token from `claude setup-token`",
    LOGIN: "log in with a browser",
}
_OFFERED: Final = {
    "anthropic": "Claude",
    "openai": "GPT, by API key",
    "openai-codex": "GPT, by ChatGPT login",
    "openrouter": "many models, one key",
    "google": "Gemini",
    "other": "another provider, by its id",
}
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 86400.0}
_LIFETIME: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|)")
_YEAR: Final = 365 * 86400.0
_LONGEST: Final = 100 * _YEAR
_SETUP_PREFIX: Final = "sk-ant-oat01-"
_SETUP_SHORTEST: Final = 80
_TRIES: Final = 3


def lifetime(written: str) -> float:
    """The seconds of a lifetime such as `365d`, `12h` or `90` (days). Raises ArgumentTypeError."""
    found = _LIFETIME.fullmatch(written.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= _LONGEST:
        raise ArgumentTypeError("write the lifetime as 365d, 12h, 30m, 90s or 500ms; the maximum is a hundred years")
    return seconds


def add(args: Namespace) -> int:
    """Stores a credential. At a terminal, it asks for what the arguments leave out."""
    if not interactive() and not (args.provider and args.method):
        raise Failure("standard input is not a terminal: give --provider and --method, and the secret on standard input",
                      code=Exit.USAGE)  # fmt: skip
    context = CommandContext.of(args)
    provider = context.provider(args.provider or _asked_provider())
    ways = methods(provider)
    method = args.method or choose("How", {way: _ABOUT[way] for way in ways})
    if method not in ways:
        raise Failure(f"{provider.id} does not support {method}: it supports {', '.join(ways)}", code=Exit.USAGE)
    args.provider = provider.id
    if method == SETUP_TOKEN:
        return setup_token(args)
    if method == LOGIN:
        from equabot_broker.cli import auth_login  # noqa: PLC0415

        return auth_login.run(args)
    usual = f"{provider.id}:{'default' if method == API_KEY else 'manual'}"
    profile_id = context.profile(args.profile_id or (ask("Profile", default=usual) if interactive() else usual), provider)
    if method == API_KEY:
        return add_key(context, provider, profile_id)
    life = args.expires_in or (_asked_lifetime() if interactive() else None)
    return _add_token(context, provider, profile_id, life=life)


def methods(provider: Provider) -> tuple[str, ...]:
    """The ways to get a credential of the provider, the usual one first."""
    own = (SETUP_TOKEN,) if provider.id == _ANTHROPIC else ()
    return (API_KEY, *own, TOKEN, *((LOGIN,) if provider.login else ()))


def add_key(context: CommandContext, provider: Provider, profile_id: str) -> int:
    """Asks for an API key and stores it."""
    context.must_be_read(provider)
    key = cleaned(secret(f"API key of {provider.id}"), provider, Mode.API_KEY, context)
    store_credential(context, profile_id, entry_of_key(provider.id, key))
    return Exit.DONE


def paste_token(args: Namespace) -> int:
    """Asks for a token, and for its lifetime unless `--expires-in` gives one, and stores the token."""
    context = CommandContext.of(args)
    provider = context.provider(args.provider)
    profile_id = context.profile(args.profile_id or f"{provider.id}:manual", provider)
    return _add_token(context, provider, profile_id, life=args.expires_in)


def _add_token(context: CommandContext, provider: Provider, profile_id: str, *, life: float | None) -> int:
    context.must_be_read(provider)
    token = cleaned(secret(f"Token of {provider.id}"), provider, Mode.TOKEN, context)
    if token.reveal().startswith(_SETUP_PREFIX):
        checked_setup_token(token)
    store_credential(context, profile_id, entry_of_token(provider.id, token, expires_at=None if life is None else now() + life))
    return Exit.DONE


def setup_token(args: Namespace) -> int:
    """Runs `claude setup-token`, asks for the token that it prints, and stores it for a year."""
    context = CommandContext.of(args)
    provider = context.provider(args.provider)
    if provider.id != _ANTHROPIC:
        other = f"`equabot models auth paste-token --provider {provider.id}` stores a token of another provider"
        raise Failure(f"setup tokens exist for Anthropic only: {other}", code=Exit.USAGE)
    if not interactive():
        raise Failure("setup-token needs an interactive terminal (TTY), because `claude setup-token` does: run it there,"
            " or store an existing token with `equabot models auth paste-token --provider anthropic`",
                      code=NO_TERMINAL)  # fmt: skip
    profile_id = context.profile(args.profile_id or "anthropic:default", provider)
    context.must_be_read(provider)
    _run_claude()
    token = _asked_setup_token(context, provider)
    store_credential(context, profile_id, entry_of_token(provider.id, token, expires_at=now() + _YEAR))
    return Exit.DONE


def _run_claude() -> None:
    given = environment()
    try:
        program = child.find("claude", path=given.get("PATH"))
    except Failure:
        program = ""
    if not program:
        raise Failure("there is no `claude` command on PATH: install Claude Code, or store a token from another machine with"
            " `equabot models auth paste-token --provider anthropic`")  # fmt: skip
    output.say("Running `claude setup-token`. Copy the token that it prints at the end.")
    with child.held_signals():
        code = child.run(program, ("claude", "setup-token"), environment=given)
    if code:
        raise Failure(
            f"`claude setup-token` exited with {code}, and nothing was stored: correct what it reports and run it again"
        )


def _asked_setup_token(context: CommandContext, provider: Provider) -> SecretValue:
    for left in reversed(range(_TRIES)):
        try:
            return checked_setup_token(cleaned(secret("Paste the token"), provider, Mode.TOKEN, context))
        except Failure as failure:
            if not left:
                raise
            output.complain(failure.message)
    raise AssertionError


def checked_setup_token(token: SecretValue) -> SecretValue:
    """The token, if it has the form of a setup token. Raises Failure, without any part of the token."""
    text = token.reveal()
    if not text.startswith(_SETUP_PREFIX):
        raise Failure("the input is not a setup token: a setup token begins with sk-ant-oat01-")
    if len(text) < _SETUP_SHORTEST:
        raise Failure(f"the input is cut off: a setup token has at least {_SETUP_SHORTEST} characters; copy all of its lines")
    return token


def _asked_provider() -> str:
    chosen = choose("Provider", _OFFERED)
    return ask("Provider id") if chosen == "other" else chosen


def _asked_lifetime() -> float | None:
    if not confirm("Does it expire?", default=False):
        return None
    while True:
        try:
            return lifetime(ask("Lifetime", default="365d"))
        except ArgumentTypeError as refused:
            output.complain(str(refused))
