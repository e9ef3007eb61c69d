"""Reasons and errors for profiles that cannot serve an agent."""

from collections.abc import Iterable, Mapping, Sequence

from equabot_broker.domain.credentials import Revival, remedy_of
from equabot_broker.domain.errors import (
    BrokerError,
    NoUsableProfile,
    ProfileNotFound,
    ReauthRequired,
    RefreshFailed,
    SourceNotSynced,
)
from equabot_broker.domain.known_names import no_profile
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.policies import Policies
from equabot_broker.domain.profiles import State
from equabot_broker.domain.provider import Catalog
from equabot_broker.domain.remedies import Places, how_to_add
from equabot_broker.domain.selection import Candidate, Plan
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.ports import Clock


class Explanations:
    """Explains the decisions of `resolver`."""

    def __init__(
        self, *, clock: Clock, catalog: Catalog, policies: Policies, registry: ProfileRegistry, places: Places
    ) -> None:
        self._clock = clock
        self._catalog = catalog
        self._policies = policies
        self._registry = registry
        self._places = places

    def apply(self, *, catalog: Catalog, policies: Policies, places: Places) -> None:
        """Another configuration is in effect."""
        self._catalog, self._policies, self._places = catalog, policies, places

    def why(self, agent: str, candidate: Candidate, model: str = "") -> str:
        """The current reason for the state of a profile for the agent, with a remedy."""
        standing = self._registry.judge((candidate.held.profile.agent, candidate.id), agent).standing
        standing = standing.for_model(model, now=self._clock.now())
        return "; ".join(filter(None, (standing.reason or standing.state.value, remedy_of(candidate.held.profile, standing))))

    def behind(self, agent: str, candidate: Candidate) -> RefreshFailed:
        """The error for a login that must be refreshed before it can serve."""
        profile, why, wait = candidate.held.profile, self.why(agent, candidate), None
        trouble = self._registry.trouble((profile.agent, profile.id))
        if trouble is not None and candidate.standing.revival is Revival.FAILING:
            wait = max(trouble.next_try - self._clock.now(), 0.0)
        message = f"profile {profile.id!r} must be refreshed first: {why}"
        return RefreshFailed(message, metadata={profile.id: why}, retry_after=wait)

    def reasons(self, agent: str, current: Plan) -> dict[str, str]:
        """The reasons of the profiles of the plan that cannot serve, by id."""
        return {c.id: self.why(agent, c) for c in current.unusable} | dict(current.excluded)

    def not_found(self, agent: str, provider: str, profile: str) -> ProfileNotFound | SourceNotSynced:
        """The error for a profile that no source holds."""
        unread = self._unread()
        if unread is not None:
            return unread
        policy = self._policies.of(agent)
        ids = (c.id for _, c in self._registry.of(agent, provider) if policy.allows_profile(provider, c.id))
        return ProfileNotFound(no_profile(profile, ids))

    def nothing_usable(self, current: Plan, agent: str, provider: str) -> BrokerError:
        """The error if no profile of the provider can serve the agent."""
        reasons = self.reasons(agent, current)
        if reasons:
            shown = "; ".join(f"{profile}: {why}" for profile, why in list(reasons.items())[:5])
            message = f"no usable profile for provider {provider!r} ({shown})"
            return unusable(message, current.unusable, reasons, now=self._clock.now())
        unread = self._unread()
        if unread is not None:
            return unread
        return NoUsableProfile(f"no credential for provider {provider!r}: {self.how_to_add(provider)}")

    def how_to_add(self, provider: str) -> str:
        """How to add a first credential of the provider."""
        return how_to_add(self._catalog.providers.get(provider), self._places)

    def unsuited(self, held: HeldProfile) -> str:
        """The notice about a credential that is for one client program and goes to another."""
        profile = held.profile
        client = self._catalog.providers[profile.provider].only_client(profile.secret)
        return (
            f"{profile.provider} accepts {profile.id} from {client} only: for other programs add an API key with"
            f" `equabot models auth add --provider {profile.provider}`. To use it for them nevertheless, name {profile.id},"
            f" or run `equabot models auth order set --provider {profile.provider} {profile.id}`"
        )

    def _unread(self) -> SourceNotSynced | None:
        unread = self._registry.material.unread
        if not unread:
            return None
        sources = ", ".join(unread[:5])
        return SourceNotSynced(f"it may be in a source that has not been read yet: {sources}; `equabot doctor` shows why")


def unusable(
    message: str, candidates: Sequence[Candidate], reasons: Mapping[str, str], *, now: float
) -> NoUsableProfile | ReauthRequired:
    """The error if none of these candidates can serve."""
    states = {candidate.standing.state for candidate in candidates}
    if states == {State.REAUTH_REQUIRED}:
        return ReauthRequired(message, metadata=reasons)
    return NoUsableProfile(message, metadata=reasons, retry_after=wait(candidates, now))


def wait(candidates: Iterable[Candidate], now: float) -> float | None:
    """Seconds until the first of them serves again. None: a person must act."""
    returning = [c.standing.returns_at for c in candidates if c.standing.returns_at]
    return max(min(returning) - now, 0.0) if returning else None
