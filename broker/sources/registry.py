"""The kinds of sources there are, one line each, and how an entry of the configuration becomes a source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from broker.domain.discovery import Rules
from broker.ports import Clock, Source
from broker.sources._watching import Watch
from broker.sources.dotenv import Dotenv, DotenvOptions
from broker.sources.env import Env, process_environment
from broker.sources.mounted import Mounted, MountedOptions

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What sources are made with. `home` is the broker's own directory; `environ` gives the environment when it is read."""

    home: Path
    rules: Rules
    clock: Clock
    environ: Callable[[], Mapping[str, str]] = process_environment


def _env(_: Options, context: Context) -> Source:
    return Env(rules=context.rules, environ=context.environ)


def _dotenv(options: Options, context: Context) -> Source:
    path = _absolute(options.get("path", context.home / ".env"))
    return Dotenv(DotenvOptions(path), rules=context.rules, watch=Watch(context.clock))


def _mounted(options: Options, context: Context) -> Source:
    path = _absolute(options.get("path", "/run/secrets/equabot"))
    return Mounted(MountedOptions(path), rules=context.rules, watch=Watch(context.clock))


KINDS: Final[Mapping[str, Callable[[Options, Context], Source]]] = MappingProxyType(
    {
        "mounted": _mounted,
        "dotenv": _dotenv,
        "env": _env,
    }
)

TAIL: Final = frozenset({"dotenv", "env"})
"""The kinds whose profiles come last when one is chosen."""


def build(kind: str, options: Options, context: Context) -> Source:
    """The source; nothing is read yet. Raises ValueError for an unknown kind and for a path that is not absolute."""
    make = KINDS.get(kind)
    if make is None:
        raise ValueError(f"unknown kind of source {kind[:40]!r}: known are {', '.join(KINDS)}")
    return make(options, context)


def _absolute(path: Path | str) -> Path:
    if not Path(path).is_absolute():
        raise ValueError("the path of a source must be absolute")
    return Path(path)
