"""The variables that a command gets of its leases: those of the provider, or those of the SDK that it uses.

For Claude Code alone, the variables depend on the command. It asks about each new `ANTHROPIC_API_KEY` before it starts, and a
lease token is always new. Other programs need that variable, so only Claude Code does not get it.
"""

import shlex
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple

from equabot_cli.arguments import client
from equabot_cli.exits import Failure

if TYPE_CHECKING:
    from equabot_cli.known_providers import KnownProvider
    from equabot_client import Lease

SDKS: Final = ("openai", "anthropic")
_CLAUDE: Final = frozenset({"claude", "claude-code"})
_ANTHROPIC: Final = "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"
_LOGIN: Final = "CLAUDE_CODE_OAUTH_TOKEN"
_LAUNCHERS: Final = frozenset(
    """bash bunx chrt command dash env exec ionice nice nohup npx pnpx script setsid sh stdbuf sudo taskset time timeout zsh
    """.split()  # noqa: SIM905 - twenty quotes hide the words
)


class As(NamedTuple):
    """A provider (empty: each one) whose lease goes into the variables of an SDK."""

    provider: str
    sdk: str


def sdk(written: str) -> As:
    """Parses `openai` or `openrouter=openai`. Raises ArgumentTypeError."""
    provider, named, name = written.rpartition("=")
    if name not in SDKS or bool(named) != bool(provider):
        raise ArgumentTypeError(f"write openai or anthropic, or PROVIDER=openai, not {written!r}")
    return As(provider, name)


def is_claude_code(command: Sequence[str]) -> bool:
    """Whether the command is Claude Code, also after a launcher such as `env`, `npx` or `sh -c`."""
    for word in command:
        if len(parts := _words(word)) > 1:
            return is_claude_code(parts)
        name = PurePath(word).name.partition("@")[0] or word
        if name.removesuffix(".exe") in _CLAUDE:
            return True
        if name not in _LAUNCHERS and not word.startswith("-") and "=" not in word and not word[:1].isdigit():
            return False
    return False


def program(command: Sequence[str]) -> str | None:
    """The program for which the broker chooses a credential: Claude Code also after a launcher."""
    return "claude" if is_claude_code(command) else client(command[0])


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an unclosed quote
        return [text]


def variables(
    lease: "Lease", *, provider: "KnownProvider | None", sdk: "KnownProvider | None", command: Sequence[str]
) -> Mapping[str, str]:
    """The variables of the lease. `provider` is None if only the broker knows it; `sdk` is the provider whose variables were
    requested. Raises Failure with the alternative if the command could not use the lease."""
    given = dict(lease.env) if sdk is None else _as_sdk(lease, sdk)
    brokered = lease.delivery == "brokered"
    if not given:
        raise Failure(f"{lease.provider}: no environment variable is known for it; `equabot key` prints its secret")
    if sdk is None and brokered and lease.base_url not in given.values():
        raise Failure(f"{lease.provider}: no variable is known for the gateway's address. {_otherwise(lease, provider)}")
    if sdk is None and brokered and provider is not None and not provider.base_url_env and provider.speaks:
        raise Failure(f"{lease.provider}: its SDKs read the gateway's address from no variable. {_otherwise(lease, provider)}")
    if is_claude_code(command):
        key, token = _ANTHROPIC
        if brokered and token in given:
            given.pop(key, None)
        elif sdk is None and lease.provider == "anthropic" and lease.mode in ("token", "oauth") and token in given:
            given[_LOGIN] = given.pop(token)
    return given


def unread(lease: "Lease", *, provider: "KnownProvider | None", sdk: "KnownProvider | None") -> str:
    """The variable with the gateway's address, if no known SDK reads it; else empty."""
    if sdk is not None or lease.delivery != "brokered" or provider is None or provider.base_url_env:
        return ""
    return provider.address_env


def _otherwise(lease: "Lease", provider: "KnownProvider | None") -> str:
    speaks = provider.speaks if provider is not None else ""
    as_sdk = f"`--as {speaks}`" if speaks else "`--as openai` or `--as anthropic`"
    own = f"set providers.{lease.provider}.base_url_env"
    return f"Use {as_sdk}, if the command has that SDK; or {own}; or give the command the key itself with --delivery raw"


def _as_sdk(lease: "Lease", sdk: "KnownProvider") -> dict[str, str]:
    if not lease.base_url:
        raise Failure(f"{lease.provider} has no address for an SDK: set providers.{lease.provider}.base_url")
    address = lease.base_url
    if lease.delivery == "brokered":
        names = sdk.sdk_env_names
    else:
        bearer = any(name.lower() == "authorization" for name in lease.headers)
        names = (sdk.token_env if bearer else sdk.key_env,)
        if sdk.id == "anthropic":
            address = address.rstrip("/").removesuffix("/v1")  # the SDKs add that themselves
    return {**dict.fromkeys(names, lease.secret.reveal()), sdk.base_url_env: address}


def merged(parts: Iterable[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """The variables of all leases. Raises Failure if two leases use the same one: otherwise the last would win without
    notice."""
    owners: dict[str, str] = {}
    given: dict[str, str] = {}
    for owner, own in parts:
        for name, value in own.items():
            if name in given:
                raise Failure(
                    f"{owners[name]} and {owner} both set {name}: give the command one of them, or one under another"
                    " SDK's variables with --as PROVIDER=openai|anthropic"
                )
            given[name], owners[name] = value, owner
    return given
