"""The report of `models status`, and its verdict. It uses values only; `now` is a parameter."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from equabot_broker.config.model import Config
from equabot_broker.diagnosis.statuses import ProfileStatus
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Mode

STATIC: Final = "static"
"""The condition of an `ok` profile that has no known end."""

_SEVERITY: Final = {STATIC: 0, State.OK: 1, State.EXPIRING: 2}
_ENVIRONMENT: Final = ("env", "dotenv")
_EXPIRED_OR_MISSING, _EXPIRING, _FINE = 1, 2, 0


@dataclass(frozen=True, slots=True)
class StatusTrouble:
    """A problem with a source: where it is, and what to do."""

    where: str
    message: str


@dataclass(frozen=True, kw_only=True)
class StatusReport:
    """The credentials of one agent. `broker` is the address of the broker that answered, or empty if the sources were read
    directly."""

    config: Config
    agent: str
    profiles: Sequence[ProfileStatus]
    troubles: Sequence[StatusTrouble]
    broker: str
    now: float

    @property
    def agent_dir(self) -> Path:
        """The directory of the agent's store."""
        return self.config.home / "agents" / self.agent / "agent"

    @property
    def store(self) -> Path:
        """The agent's profile store."""
        return self.agent_dir / "auth-profiles.json"

    def of(self, provider: str) -> list[ProfileStatus]:
        """The provider's profiles, in the order in which they would be tried."""
        return [profile for profile in self.profiles if profile.provider == provider]

    def providers(self) -> list[str]:
        """The providers in use, and those with a profile."""
        return sorted({profile.provider for profile in self.profiles} | set(self.in_use))

    @cached_property
    def in_use(self) -> list[str]:
        """The providers that matter to the agent: those of the configured models and the required ones, as far as its policy
        allows them. If that leaves none, every provider with a profile."""
        models = (self.config.models.default, *self.config.models.fallbacks)
        named = {model.partition("/")[0] for model in models if model} | set(self.config.required)
        known = {self.config.catalog.normalise(name) or name for name in named}
        policy = self.config.policies.agents.get(self.agent)
        known = {provider for provider in known if policy is None or policy.allows_provider(provider)}
        return sorted(known or {profile.provider for profile in self.profiles})

    def missing(self) -> list[str]:
        """The providers in use without a profile."""
        return [provider for provider in self.in_use if all(p.state == State.MISSING for p in self.of(provider))]

    def served(self, provider: str) -> bool:
        """Whether the agent would be granted a credential of the provider now."""
        return any(profile.usable for profile in self.of(provider))

    def unserved(self) -> list[str]:
        """The providers in use of which the agent would be granted no credential."""
        return [provider for provider in self.in_use if not self.served(provider)]

    def alarming(self, profile: ProfileStatus) -> bool:
        """Whether the profile needs an operator. One that was never valid needs none if the provider has another that
        works."""
        never = profile.state in (State.INVALID, State.MISSING)
        return severity(profile) > _SEVERITY[State.EXPIRING] and not (never and self.served(profile.provider))

    def verdict(self) -> int:
        """The exit code of `--check`: 1 if the agent would be granted no credential of a provider in use, or if one of its
        credentials has expired, was rejected or needs a login; 2 if one is expiring; else 0. If no provider is in use, it is
        1."""
        used = self.in_use
        profiles = [profile for profile in self.profiles if profile.provider in used]
        if not used or self.unserved() or any(map(self.alarming, profiles)):
            return _EXPIRED_OR_MISSING
        return _EXPIRING if any(severity(profile) == _SEVERITY[State.EXPIRING] for profile in profiles) else _FINE


def condition(profile: ProfileStatus) -> str:
    """The profile's state; `static` for a valid one that has no known end."""
    static = profile.state == State.OK and not profile.expires_at and profile.mode in (Mode.API_KEY, Mode.TOKEN)
    return STATIC if static else profile.state


def severity(profile: ProfileStatus) -> int:
    return _SEVERITY.get(condition(profile), len(_SEVERITY))


def from_environment(profile: ProfileStatus) -> bool:
    return profile.source.split(" ", 1)[0] in _ENVIRONMENT


def label(profile: ProfileStatus) -> str:
    return profile.label or "(hidden)"


def effective(report: StatusReport, provider: str) -> tuple[str, str]:
    """Where a request's credential would come from (`profiles`, `env` or `missing`), and the source."""
    held = [profile for profile in report.of(provider) if profile.state != State.MISSING]
    if not held:
        return "missing", "missing"
    first = next((profile for profile in held if profile.next), held[0])
    if from_environment(first):
        return "env", f"{label(first)} ({first.source})"
    return "profiles", f"{first.id} ({first.source})"
