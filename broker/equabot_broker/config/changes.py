"""The differences between two configurations: those that need a restart, and a line for each of the others.

The lines name keys and never values, so they hold no secret.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from equabot_broker.config.model import Config
from equabot_broker.domain.callers import Callers

_FIXED: Final = ("run_dir", "state_path", "seal_key_file")
_LIVE: Final = (
    "required", "rules", "order", "cooldowns", "probe", "leases", "expiry", "models", "profiles", "profile_aliases",
    "workloads", "env", "shell_env",
)  # fmt: skip
_KEYS: Final[Mapping[str, str]] = {
    "seal_key_file": "seal.key_file",
    "rules": "profiles",
    "order": "auth.order",
    "cooldowns": "auth.cooldowns",
    "probe": "auth.probe",
    "profiles": "auth.profiles",
    "profile_aliases": "profiles",
    "workloads": "profiles",
    "shell_env": "env.shellEnv",
}
"""The keys in the file, for fields with other names."""


def needs_restart(running: Config, wanted: Config) -> list[str]:
    """The keys that differ and are applied only at the next start."""
    found = [_KEYS.get(name, name) for name in _FIXED if getattr(running, name) != getattr(wanted, name)]
    found += ["EQUABOT_HOME"] if running.home != wanted.home else []
    for name in ("health", "metrics", "gateway", "admin", "control"):
        if getattr(running.listen, name) != getattr(wanted.listen, name):
            found.append(f"listen.{name}")
    if _listeners(running) != _listeners(wanted):
        found.append("listen.agents")
    for agent in running.policies.agents.keys() & wanted.policies.agents.keys():
        if running.listen.agents.get(agent) != wanted.listen.agents.get(agent):
            found.append(f"agents.{agent}.socket")
    for section in ("gateway", "audit"):
        found += _differing(section, getattr(running, section), getattr(wanted, section))
    return found


def changes(running: Config, wanted: Config) -> list[str]:
    """The other differences, one line each: `agent worker added`, `provider zai changed`, `auth.order`."""
    found = [
        *_entries("agent", _agents(running), _agents(wanted)),
        *_entries("provider", running.catalog.providers, wanted.catalog.providers),
        *_entries("source", _sources(running), _sources(wanted)),
    ]
    if not any(line.startswith("source ") for line in found) and running.sources != wanted.sources:
        found.append("sources in another order")
    found += [_KEYS.get(name, name) for name in _LIVE if _plain(getattr(running, name)) != _plain(getattr(wanted, name))]
    return list(dict.fromkeys(found))


def _listeners(config: Config) -> object:
    """The listeners, without the callers that they accept."""
    return None if config.remote is None else replace(config.remote, callers=Callers())


def _agents(config: Config) -> dict[str, object]:
    callers = Callers() if config.remote is None else config.remote.callers
    names = (callers.accounts, callers.certificates)
    return {
        agent: (policy, *(sorted(name for name, owner in of.items() if owner == agent) for of in names))
        for agent, policy in config.policies.agents.items()
    }


def _sources(config: Config) -> dict[str, object]:
    return {" ".join((spec.kind, *map(str, spec.options.values()))): dict(spec.options) for spec in config.sources}


def _entries(what: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield f"{what} {name} added"
        elif name not in after:
            yield f"{what} {name} removed"
        elif before[name] != after[name]:
            yield f"{what} {name} changed"


def _differing(section: str, before: object, after: object) -> list[str]:
    names = [field.name for field in fields(before)]  # type: ignore[arg-type]  # both are options of one kind
    return [f"{section}.{name}" for name in names if getattr(before, name) != getattr(after, name)]


def _plain(value: Any) -> Any:
    """The value to compare. The rules of profiles are compared without the catalog, which is compared by provider."""
    rules = hasattr(value, "bindings")
    return (dict(value.bindings), dict(value.overrides), value.foreign_logins) if rules else value
