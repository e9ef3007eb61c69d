"""Profiles: named credentials, as a source delivers them."""

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.errors import InvalidArgument
from equabot_broker.domain.masking import quoted
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue


class State(StrEnum):
    """The state of a profile's credential. Cooldowns and disables are not part of it."""

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
"""The kinds of source that read logins of other tools, by the profile that each delivers."""

FOREIGN_LOGINS: Final = frozenset(TOOL_OF)
"""The logins of other tools. If two programs use one single-use refresh token, the login ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredEnd:
    """An end that is written next to a credential, so that it stays when the credential changes.

    `at` is the end, `own` the end in the credential itself, both in seconds since the epoch. `where` is the place to correct.
    `older`: the end was written before the credential.
    """

    at: float
    where: str
    own: float | None = None
    older: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One named credential of a provider.

    Without a `secret`, `fault` says why. `expires_at` is in seconds since the epoch. `source` names the source, `unit` the
    bundle in it (a directory, a file, a Secret), `origin` the place for a person. `agent` is the one agent to which the
    profile belongs, or empty for all agents. `refresh` is set only if the broker refreshes the login. `reauth` is empty, or
    says why a person must log in again. `issued_at` is the time of issue if it is known. `workload`: the credential comes
    from exchanging a workload identity. `configured`: the configuration names this place. `copied_from`: the source, or the
    kind of source, of which this is a copy; the copy serves only while that source holds the login. `declared` is the place
    of `expires_at` if that is not the credential; `doubt` says why such an end is not applied (see `domain.ends`).
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
        """The kind of source whose tool renews this login in its own file, or empty."""
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
