"""The kinds of sources there are, one line each, and how an entry of the configuration becomes a source."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from equabot_broker.domain.discovery import DiscoveryRules
from equabot_broker.formats.tool_logins import TOOLS, Tool
from equabot_broker.ports import Clock, Source
from equabot_broker.sources._watching import Watch
from equabot_broker.sources.dotenv import Dotenv, DotenvOptions
from equabot_broker.sources.env import Env, EnvOptions, process_environment
from equabot_broker.sources.kubernetes import KubernetesOptions, KubernetesSecrets
from equabot_broker.sources.mounted import Mounted, MountedOptions
from equabot_broker.sources.profile_store import ProfileStores, Store
from equabot_broker.sources.tool_login import ToolLogin, ToolLoginOptions

Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What sources are made with. `home` is the broker's own directory; `environ` gives the environment when it is read;
    `stores` are the agents' profile stores; `env` is what stands in for what the environment lacks."""

    home: Path
    rules: DiscoveryRules
    clock: Clock
    environ: Callable[[], Mapping[str, str]] = process_environment
    stores: Mapping[str, Store] = field(default_factory=lambda: MappingProxyType({}))
    env: EnvOptions = field(default_factory=EnvOptions)


def _env(_: Options, context: Context) -> Source:
    return Env(context.env, rules=context.rules, environ=context.environ, clock=context.clock)


def _dotenv(options: Options, context: Context) -> Source:
    path = _absolute(options.get("path", context.home / ".env"))
    return Dotenv(DotenvOptions(path), rules=context.rules, watch=Watch(context.clock))


def _mounted(options: Options, context: Context) -> Source:
    path = _absolute(options.get("path", "/run/secrets/equabot"))
    return Mounted(MountedOptions(path), rules=context.rules, watch=Watch(context.clock))


def kubernetes_options(options: Options) -> KubernetesOptions:
    """The options of a source of that kind. Raises ValueError for a kubeconfig that is not absolute."""
    kubeconfig = _absolute(options["kubeconfig"]) if "kubeconfig" in options else None
    return KubernetesOptions(
        selector=options.get("selector", ""),
        names=tuple(options.get("names", ())),
        namespace=options.get("namespace", ""),
        kubeconfig=kubeconfig,
    )


def _kubernetes(options: Options, context: Context) -> Source:
    return KubernetesSecrets(kubernetes_options(options), rules=context.rules, clock=context.clock)


def _profile_store(_: Options, context: Context) -> Source:
    return ProfileStores(context.stores, rules=context.rules, watch=Watch(context.clock))


def _login(kind: str, tool: Tool) -> Callable[[Options, Context], Source]:
    def make(options: Options, context: Context) -> Source:
        place = ToolLoginOptions(kind, tool, _absolute(options["path"]))
        return ToolLogin(place, rules=context.rules, watch=Watch(context.clock))

    return make


KINDS: Final[Mapping[str, Callable[[Options, Context], Source]]] = MappingProxyType(
    {
        "kubernetes": _kubernetes,
        "mounted": _mounted,
        "profile_store": _profile_store,
        **{kind: _login(kind, tool) for kind, tool in TOOLS.items()},
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
