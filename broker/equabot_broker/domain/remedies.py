"""What a person does about a credential: the one place that says it, so that all commands, errors and findings agree.

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
"""The label by which Secrets are found where neither a selector nor names are given."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a broker takes credentials from: the `kinds` of its sources, the path of its `.env`, the directories that are
    mounted, the Secrets by name, and the labels that choose others."""

    kinds: tuple[str, ...] = (_STORE, "dotenv", "env")
    dotenv: str = ".env"
    mounted: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def stores(self) -> bool:
        """Whether what a command stores is read."""
        return _STORE in self.kinds


ANYWHERE: Final = Places()
"""The places of a broker that is not configured."""


def how_to_add(provider: Provider | None, places: Places = ANYWHERE) -> str:
    """How the broker gets a first credential of the provider; None: of any provider."""
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
    """The same for places whose files and Secrets others write; files only where there is no other way."""
    ways = [f"write it to the file {path}/{name}" for path in places.mounted[:1] if alone]
    command = f"--from-file={name}=KEY_FILE"
    ways += [f"run `kubectl create secret generic {secret} {command}`" for secret in places.secrets[:1]]
    ways += [f"put {name} into a Secret and run `kubectl label secret NAME {label}`" for label in places.labels[:1]]
    return ways


def variable(provider: Provider | None) -> str:
    """The variable that a key of the provider is put under; empty where it has none. A key first: most people have one."""
    if provider is None:
        return _ANY
    keys = [name.name for name in provider.env_names if name.mode is Mode.API_KEY]
    return next(iter(keys or [name.name for name in provider.env_names]), "")


def how_to_replace(profile_id: str, *, mode: str, source: str, agent: str = "", expired: bool = False) -> str:
    """How a new credential gets to where the profile's is kept; `agent` where the profile is that agent's alone. `expired`:
    it was good until its end, so that a tool can renew it."""
    kind, _, place = source.partition(" ")
    tool = kind if kind in _TOOLS else TOOL_OF.get(profile_id, "")
    if expired and tool and mode == Mode.OAUTH:
        return f"open {_TOOLS[tool]} once: it renews its login"
    if mode == Mode.WIF:
        return "it is exchanged again by itself: correct the identity token, or what the vendor trusts"
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
    """What a person does about a credential in that state: how it is replaced, and for a refused one, how that is taken back.
    Errors, `models status`, `doctor`, `health` and the broker's findings say this alike."""
    how = how_to_replace(profile_id, mode=mode, source=source, agent=agent, expired=state == State.EXPIRED)
    return f"{how}; if the provider was wrong, `equabot profile clear {profile_id}`" if state == State.REJECTED else how
