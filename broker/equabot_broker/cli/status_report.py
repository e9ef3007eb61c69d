"""What `models status` knows and how it judges. Decided from values alone; `now` comes in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from equabot_broker.config.model import Config
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.statuses import ProfileStatus

STATIC: Final = "static"
"""How an `ok` profile is called that does not say when it ends."""

_SEVERITY: Final = {STATIC: 0, State.OK: 1, State.EXPIRING: 2}
_ENVIRONMENT: Final = ("env", "dotenv")
_EXPIRED_OR_MISSING, _EXPIRING, _FINE = 1, 2, 0


@dataclass(frozen=True, slots=True)
class StatusTrouble:
    """Something wrong with a source: where, and what to do."""

    where: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """One agent's credentials. `broker` is the address of the one that answered, empty where the sources were read without."""

    config: Config
    agent: str
    profiles: Sequence[ProfileStatus]
    troubles: Sequence[StatusTrouble]
    broker: str
    now: float

    @property
    def agent_dir(self) -> Path:
        """Where the agent's store is."""
        return self.config.home / "agents" / self.agent / "agent"

    @property
    def store(self) -> Path:
        """The agent's profile store."""
        return self.agent_dir / "auth-profiles.json"

    def of(self, provider: str) -> list[ProfileStatus]:
        """The provider's profiles, in the order in which they would be tried."""
        return [profile for profile in self.profiles if profile.provider == provider]

    def providers(self) -> list[str]:
        """Every provider there is something to say of."""
        return sorted({profile.provider for profile in self.profiles} | set(self.in_use()))

    def in_use(self) -> list[str]:
        """The providers that matter to the agent: those of the configured models and the required ones, as far as its policy
        allows them. Where none of these is configured or allowed, every provider that has a profile."""
        models = (self.config.models.default, *self.config.models.fallbacks)
        named = {model.partition("/")[0] for model in models if model} | set(self.config.required)
        known = {self.config.catalog.normalise(name) or name for name in named}
        policy = self.config.policies.agents.get(self.agent)
        known = {provider for provider in known if policy is None or policy.allows_provider(provider)}
        return sorted(known or {profile.provider for profile in self.profiles})

    def missing(self) -> list[str]:
        """The providers in use that have no profile at all."""
        return [provider for provider in self.in_use() if all(p.state == State.MISSING for p in self.of(provider))]

    def served(self, provider: str) -> bool:
        """Whether the agent would be granted a credential of the provider now."""
        return any(profile.usable for profile in self.of(provider))

    def unserved(self) -> list[str]:
        """The providers in use of which the agent would be granted nothing."""
        return [provider for provider in self.in_use() if not self.served(provider)]

    def alarming(self, profile: ProfileStatus) -> bool:
        """Whether it takes a person: it has ended. What never was a credential is no alarm next to one that serves."""
        never = profile.state in (State.INVALID, State.MISSING)
        return severity(profile) > _SEVERITY[State.EXPIRING] and not (never and self.served(profile.provider))

    def verdict(self) -> int:
        """What `--check` exits with: 1 when the agent would be granted nothing of a provider in use, or a credential of it has
        expired, was rejected or needs a login; 2 when one is expiring; 0 when all is well. Nothing in use at all is missing."""
        used = self.in_use()
        profiles = [profile for profile in self.profiles if profile.provider in used]
        if not used or self.unserved() or any(map(self.alarming, profiles)):
            return _EXPIRED_OR_MISSING
        return _EXPIRING if any(severity(profile) == _SEVERITY[State.EXPIRING] for profile in profiles) else _FINE


def condition(profile: ProfileStatus) -> str:
    """The profile's state, `static` for one that is well and does not say when it ends."""
    static = profile.state == State.OK and not profile.expires_at and profile.mode in (Mode.API_KEY, Mode.TOKEN)
    return STATIC if static else profile.state


def severity(profile: ProfileStatus) -> int:
    return _SEVERITY.get(condition(profile), len(_SEVERITY))


def from_environment(profile: ProfileStatus) -> bool:
    return profile.source.split(" ", 1)[0] in _ENVIRONMENT


def label(profile: ProfileStatus) -> str:
    return profile.label or "(hidden)"


def effective(report: StatusReport, provider: str) -> tuple[str, str]:
    """Where a request's credential would come from (`profiles`, `env` or `missing`), and which that is."""
    held = [profile for profile in report.of(provider) if profile.state != State.MISSING]
    if not held:
        return "missing", "missing"
    first = next((profile for profile in held if profile.next), held[0])
    if from_environment(first):
        return "env", f"{label(first)} ({first.source})"
    return "profiles", f"{first.id} ({first.source})"
