"""Applies the answers of providers to profiles: for the agent of the request, and for all agents."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from equabot_broker.domain.cooldowns import (
    CooldownOptions,
    Outcome,
    Usage,
    accepted,
    cooled,
    failed,
    is_old,
    rejected,
    succeeded,
)
from equabot_broker.domain.evidence import Evidence, confirmed, disproved, relieved
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.policies import Policies
from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.engine.profiles.confirmation import Confirmation
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry
from equabot_broker.engine.profiles.suitability import Suitability
from equabot_broker.engine.refresh.scheduler import RefreshScheduler
from equabot_broker.ports import Clock

_REFUSED: Final = "the provider refused it (401)"
_REFUSED_ONE: Final = "the provider refused it to this agent (401)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """A failure as in `Outcomes.note`. `proven`: even the smallest request failed."""

    outcome: Outcome
    retry_after: float | None = None
    began: float | None = None
    earliest: float | None = None
    sure: bool = True
    model: str = ""
    proven: bool = False

    @property
    def refuses(self) -> bool:
        return self.outcome is Outcome.AUTH and self.sure

    @property
    def about(self) -> str:
        """The model of the failure, or empty for the whole profile."""
        return "" if self.refuses or self.outcome is Outcome.BILLING else self.model

    def is_old(self, usage: Usage, now: float) -> bool:
        """Whether the request was sent before the current cooldown began."""
        return is_old(usage, now=now, began=self.began, earliest=self.earliest, model=self.about)


class Outcomes:
    """Causes cooldowns, disables, rejections and forced refreshes.

    A failure of a profile that only one agent may use applies at once. A failure of a shared profile applies to the agent of
    the request, and to the others when it is confirmed (`domain.evidence`).
    """

    def __init__(
        self,
        *,
        clock: Clock,
        policies: Policies,
        registry: ProfileRegistry,
        suitability: Suitability,
        refresh_scheduler: RefreshScheduler,
        confirmation: Confirmation,
        cooldowns: CooldownOptions,
        chance: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._policies = policies
        self._registry = registry
        self._suitability = suitability
        self._refresh_scheduler = refresh_scheduler
        self._confirmation = confirmation
        self._cooldowns = cooldowns
        self._chance = chance

    def apply(self, *, policies: Policies, cooldowns: CooldownOptions) -> None:
        """Another configuration is in effect. Active cooldowns keep their ends."""
        self._policies, self._cooldowns = policies, cooldowns

    def note(
        self,
        held: HeldProfile,
        outcome: Outcome,
        *,
        agent: str,
        seen: bool = False,
        retry_after: float | None = None,
        began: float | None = None,
        earliest: float | None = None,
        sure: bool = True,
        model: str = "",
        client: str = "",
    ) -> None:
        """Applies the answer to a request of the agent with this material, which must be the current one.

        `seen`: the gateway saw the answer itself. `began` is when the request was sent (seconds since the epoch), `earliest` a
        lower bound for it: of many concurrent requests only the first failure counts. `sure`: AUTH is about the credential;
        otherwise it may be about the request and causes only a cooldown. `model` is the model of the request: limits, timeouts
        and malformed requests apply to that model alone. `client` is the client program, or empty.
        """
        if outcome is Outcome.OK:
            self._succeeded(held, agent, seen=seen, began=began, model=model)
            if self._suitability.served(agent, held, client=client):
                self._registry.reordered()
        elif outcome is Outcome.FORMAT:
            if self._suitability.refused(agent, held, client=client):
                self._registry.reordered()
        else:
            failure = _Failure(outcome=outcome, retry_after=retry_after, began=began, earliest=earliest, sure=sure, model=model)
            if self._is_only_agent(agent, held):
                self._count_for_all(held, failure)
            else:
                self._count_for_agent(agent, held, failure)

    # -- a success -----------------------------------------------------------------------------------------------------

    def _succeeded(self, held: HeldProfile, agent: str, *, seen: bool, began: float | None, model: str) -> None:
        key = _key(held)
        self._refresh_scheduler.proved(key, held.version)
        usage, evidence = self._registry.remembered(key), self._registry.evidence(key)
        if usage.clean and not evidence:
            return  # the usual case: there is nothing to clear
        if seen:
            self._disprove(key, before=self._clock.now() if began is None else began, model=model)
        own, now = evidence.get(agent), self._clock.now()
        if own is not None and own.outcome is not Outcome.OK and not _is_older(own.usage, began, model):
            self._registry.replace_evidence(agent, key, relieved(own, model=model, now=now))
        if usage.clean or _is_older(usage, began, model):
            return
        waits = usage.cooling(now) or usage.rejects(held.version, now) or usage.model_until(model) > now
        # A report alone does not end a cooldown or rejection for other agents.
        if seen or not waits or self._is_only_agent(agent, held):
            self._registry.replace_usage(key, succeeded(self._registry.usage(key), now=now, model=model))

    def _disprove(self, key: Key, *, before: float, model: str = "") -> None:
        """Disproves earlier evidence of all agents, because the profile serves. A success counts only for its own model."""
        now = self._clock.now()
        for agent, own in list(self._registry.evidence(key).items()):
            if own.model in ("", model) and own.counts and own.met_at <= before:
                self._registry.replace_evidence(agent, key, disproved(own, now=now))

    # -- a failure -----------------------------------------------------------------------------------------------------

    def _count_for_all(self, held: HeldProfile, failure: _Failure) -> None:
        """Applies the failure to all agents."""
        key = _key(held)
        usage = self._registry.usage(key)
        stale = failure.outcome is not Outcome.AUTH and failure.is_old(usage, self._clock.now())
        if (stale and not failure.proven) or (
            failure.outcome is Outcome.AUTH and self._refresh_scheduler.force(key, held.version)
        ):
            return
        after = self._after(usage, held, failure, _REFUSED)
        if after is not usage:
            self._registry.replace_usage(key, after)

    def _count_for_agent(self, agent: str, held: HeldProfile, failure: _Failure) -> None:
        """Applies the failure to the agent, and to all agents if it is confirmed."""
        key, now = _key(held), self._clock.now()
        known = self._registry.evidence(key)
        before = known.get(agent, Evidence())
        if failure.outcome is not Outcome.AUTH and failure.is_old(before.usage, now):
            return
        fresh = failure.outcome is Outcome.AUTH and self._refresh_scheduler.force(key, held.version, for_all=False)
        usage = replace(before.usage, last_failure=now) if fresh else self._after(before.usage, held, failure, _REFUSED_ONE)
        if usage is before.usage:
            return
        own = replace(
            before,
            outcome=failure.outcome,
            sure=failure.sure,
            version=held.version,
            model=failure.about,
            usage=usage,
            refused=held.version if fresh else before.refused,
        )
        self._registry.replace_evidence(agent, key, own)
        if confirmed(own, (other for name, other in known.items() if name != agent), now=now):
            self._count_for_all(held, failure)
        elif failure.refuses or failure.outcome is Outcome.BILLING:
            self._confirmation.ask(held, failure.outcome)

    def _after(self, usage: Usage, held: HeldProfile, failure: _Failure, why: str) -> Usage:
        """The usage after the failure; the same object if nothing changes."""
        now = self._clock.now()
        if failure.refuses:
            known = usage.rejected and usage.rejected_version == held.version
            if known and not failure.proven and (usage.rejects(held.version, now) or failure.is_old(usage, now)):
                return usage
            return rejected(usage, why, version=held.version, now=now, chance=self._chance())
        if failure.is_old(usage, now) and not failure.proven:
            return usage
        after = failed(
            usage,
            failure.outcome,
            provider=held.profile.provider,
            now=now,
            options=self._cooldowns,
            retry_after=failure.retry_after,
            proven=failure.proven,
            model=failure.about,
            version=held.version,
        )
        disables = after.disabled_until > usage.disabled_until and not failure.proven
        # Each of these requests may have been too large. If a probe is possible, the smallest request decides.
        asks = disables and self._confirmation.ask(held, failure.outcome)
        return cooled(usage, now=now, version=held.version) if asks else after

    # -- the broker's own requests -------------------------------------------------------------------------------------

    def probe_answered(self, held: HeldProfile, asked: Outcome, found: ProbeResult, began: float) -> None:
        """A listener of the confirmation: applies the result of a probe that was sent at `began`."""
        key = _key(held)
        if found.verdict is Verdict.OK:
            usage = self._registry.usage(key)
            if asked is Outcome.BILLING and usage.last_failure and not _is_older(usage, began, ""):
                self._registry.replace_usage(key, succeeded(usage, now=self._clock.now()))
            elif usage.rejected:
                self._registry.replace_usage(key, accepted(usage))
            self._disprove(key, before=began)
        elif found.verdict is Verdict.AUTH and found.sure:
            self._count_for_all(held, _Failure(outcome=Outcome.AUTH, proven=True))
        elif found.verdict is Verdict.BILLING:
            self._count_for_all(held, _Failure(outcome=Outcome.BILLING, proven=True))

    def _is_only_agent(self, agent: str, held: HeldProfile) -> bool:
        """Whether no other agent may use the profile."""
        profile = held.profile
        return bool(profile.agent) or not any(
            name != agent and policy.allows_profile(profile.provider, profile.id)
            for name, policy in self._policies.agents.items()
        )


def _key(held: HeldProfile) -> Key:
    return held.profile.agent, held.profile.id


def _is_older(usage: Usage, began: float | None, model: str) -> bool:
    """Whether a successful request for the model was sent before the last failure."""
    of_model = usage.models.get(model)
    last = usage.last_failure if of_model is None else max(usage.last_failure, of_model.last_failure)
    return began is not None and began < last
