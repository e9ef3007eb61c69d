"""Profiles: named credentials, as a source delivered them."""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.masking import quoted
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue


class State(StrEnum):
    """What a profile's credential is worth now. Cooldowns and disables stand beside it, not in it."""

    OK = "ok"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    MISSING = "missing"
    INVALID = "invalid"
    REJECTED = "rejected"
    REAUTH_REQUIRED = "reauth_required"


SERVING_STATES = frozenset({State.OK, State.EXPIRING})

TOOL_OF: Final = MappingProxyType(
    {"anthropic:claude-cli": "claude_cli", "openai-codex:codex-cli": "codex_cli", "qwen-portal:qwen-cli": "qwen_cli"}
)
"""The kinds of source that read the logins of other tools, by the profile that each makes."""

FOREIGN_LOGINS: Final = frozenset(TOOL_OF)
"""The logins of other tools. Two programs that redeem one single-use refresh token end each other's login."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredEnd:
    """An end that is written next to a credential and not in it, so that it stays when the credential changes. `at` and `own`
    in seconds since the epoch; `where` is the place that a person corrects; `own` is what the credential's data says.
    `older`: its place says that the data was written after it.
    """

    at: float
    where: str
    own: float | None = None
    older: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One named credential of a provider.

    `secret` is absent exactly when `fault` says why. `expires_at` is in seconds since the epoch. `source` names the source,
    `unit` the bundle inside it (a directory, a file, a Secret), `origin` the place a person would look at.
    `agent` is empty for a profile every agent may be given, else the one agent it belongs to. `refresh` is there only where
    it is the broker's to redeem; `reauth`, when it says anything, why that failed for good, so that a person must log in again.
    `issued_at` is when the credential was given, where that is known. `workload`: it is what a workload's identity is exchanged
    for, again and again. `configured`: the configuration names this place for it. `copied_from`: the source, or the
    kind of source, of which it is a copy; it serves only while that holds the login. `declared` is where `expires_at` comes
    from when that is not the credential's data; `doubt` says why such an end is not applied (see `domain.ends`).
    """

    id: str
    provider: str
    mode: Mode
    source: str
    unit: str
    origin: str
    secret: SecretValue | None = None
    fault: str = ""
    expires_at: float | None = None
    refresh: SecretValue | None = None
    client_id: str = ""
    account: str = ""
    email: str = ""
    agent: str = ""
    reauth: str = ""
    issued_at: float | None = None
    workload: bool = False
    configured: bool = False
    copied_from: str = ""
    declared: DeclaredEnd | None = None
    doubt: str = ""

    @property
    def tool(self) -> str:
        """The kind of source whose tool renews this login in its file, by itself and in time; empty: no tool does."""
        kind = (self.copied_from or self.source).partition(" ")[0]
        return kind if self.mode is Mode.OAUTH and not self.renews and kind in TOOL_OF.values() else ""

    @property
    def renews(self) -> bool:
        """Whether the broker gets new tokens for it, unless that has failed for good."""
        return self.workload or self.refresh is not None


def split_id(profile_id: str) -> tuple[str, str]:
    """`provider` and `name` of `provider:name`.

    Raises InvalidArgument when there is no colon, or nothing on one side of it.
    """
    provider, colon, name = profile_id.partition(":")
    if not colon or not provider or not name:
        raise InvalidArgument(f"profile id {quoted(profile_id)} is not of the form provider:name")
    return provider, name
