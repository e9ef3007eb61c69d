"""Remedies for a missing or unusable credential. All commands, errors and findings use these texts.

A remedy is a phrase that follows a colon. It names only places that this broker reads.
"""

from dataclasses import dataclass
from typing import Final

from equabot_broker.domain.profiles import TOOL_OF, State
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.relogin import login_command

_STORE: Final = "profile_store"
_VARIABLES: Final = ("env", "dotenv")
_TOOLS: Final = {"claude_cli": "Claude Code", "codex_cli": "Codex", "qwen_cli": "Qwen Code"}
_ANY: Final = "ANTHROPIC_API_KEY"
LABEL: Final = "equabot.dev/credential=true"
"""The label that selects Secrets if neither a selector nor names are configured."""


@dataclass(frozen=True, slots=True)
class Places:
    """The places from which a broker reads credentials: the `kinds` of its sources, the path of its `.env`, mounted
    directories, names of Secrets, and labels that select Secrets."""

    kinds: tuple[str, ...] = (_STORE, "dotenv", "env")
    dotenv: str = ".env"
    mounted: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def stores(self) -> bool:
        """Whether the broker reads the stores that commands write."""
        return _STORE in self.kinds


ANYWHERE: Final = Places()
"""The places of a broker without a configuration."""


def how_to_add(provider: Provider | None, places: Places = ANYWHERE) -> str:
    """How to add a first credential of the provider, or of any provider for None."""
    ways, name = [], variable(provider)
    written = [place for kind, place in (("env", "the environment"), ("dotenv", places.dotenv)) if kind in places.kinds]
    if name and written:
        ways.append(f"set {name} in {' or in '.join(written)}")
    if places.stores:
        ways.append(f"run `{f'equabot models auth add --provider {provider.id}' if provider else 'equabot onboard'}`")
    if name:
        ways += _in_cluster(name, places, alone=not ways)
    if not ways:
        kinds = ", ".join(dict.fromkeys(places.kinds)) or "none is configured"
        ways.append(f"put {name or 'a credential'} into one of the sources ({kinds})")
    return ", or ".join(ways)


def _in_cluster(name: str, places: Places, *, alone: bool) -> list[str]:
    """Ways to add it through a mounted directory or a Secret. A directory is named only if there is no other way."""
    ways = [f"write it to the file {path}/{name}" for path in places.mounted[:1] if alone]
    command = f"--from-file={name}=KEY_FILE"
    ways += [f"run `kubectl create secret generic {secret} {command}`" for secret in places.secrets[:1]]
    ways += [f"put {name} into a Secret and run `kubectl label secret NAME {label}`" for label in places.labels[:1]]
    return ways


def variable(provider: Provider | None) -> str:
    """The environment variable for a key of the provider, or empty. Variables for keys come before those for tokens."""
    if provider is None:
        return _ANY
    keys = [name.name for name in provider.env_names if name.mode is Mode.API_KEY]
    return next(iter(keys or [name.name for name in provider.env_names]), "")


def how_to_replace(profile_id: str, *, mode: str, source: str, agent: str = "", expired: bool = False) -> str:
    """How to replace the credential of the profile. `agent`: the profile belongs to this agent alone.

    `expired`: the credential only reached its end, so that its tool can renew it.
    """
    kind, _, place = source.partition(" ")
    tool = kind if kind in _TOOLS else TOOL_OF.get(profile_id, "")
    if expired and tool and mode == Mode.OAUTH:
        return f"open {_TOOLS[tool]} once: it renews its login"
    if mode == Mode.WIF:
        return "the broker exchanges it again: correct the identity token, or the trust settings at the vendor"
    if kind in _VARIABLES:
        return f"replace its value in {place or 'the environment'}"
    if kind != _STORE and not kind.endswith("_cli"):
        return f"replace it in {source}"
    if kind.endswith("_cli") or mode == Mode.OAUTH or (mode == Mode.TOKEN and profile_id.endswith("-cli")):
        return login_command(profile_id, agent)
    named = f"--provider {profile_id.partition(':')[0]} --profile-id {profile_id}{f' --agent {agent}' if agent else ''}"
    command = "add --method api-key" if mode == Mode.API_KEY else "paste-token"
    return f"equabot models auth {command} {named}"


def how_to_recover(profile_id: str, *, state: str, mode: str, source: str, agent: str = "") -> str:
    """The remedy for a credential in that state: how to replace it, and how to clear a wrong rejection."""
    how = how_to_replace(profile_id, mode=mode, source=source, agent=agent, expired=state == State.EXPIRED)
    return f"{how}; if the provider was wrong, `equabot profile clear {profile_id}`" if state == State.REJECTED else how
