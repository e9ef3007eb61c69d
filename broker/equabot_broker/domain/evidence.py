"""Evidence: what the traffic of one agent shows about a profile that other agents use too.

A failure applies at once to the agent that got it. It applies to the other agents when a second agent gets the same failure,
or when a request of the broker itself gets it. An agent whose failure was disproved is doubted for an hour: two doubted
agents do not confirm each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome, Usage, succeeded

REMEMBERED: Final = HOUR
"""Seconds for which a failure is evidence, and for which an agent is doubted after a disproved failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The last failure of one profile in the traffic of one agent, and the `usage` that results for the agent.

    `model` is the model of the failure; empty: the whole profile. `refused` is the version of a login whose access token the
    provider refused. Instants are in seconds since the epoch.
    """

    outcome: Outcome = Outcome.OK
    sure: bool = True
    version: int = 0
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    refused: int = 0
    doubted_until: float = 0.0

    def lapses_at(self) -> float:
        """The instant from which it has no effect."""
        usage = self.usage
        held = [usage.cooldown_until, usage.disabled_until, usage.rejected_until, self.doubted_until]
        held += [cooling.until for cooling in usage.models.values()]
        return max(*held, self.met_at + REMEMBERED if self.met_at else 0.0)

    @property
    def met_at(self) -> float:
        """The instant of the last failure, or 0."""
        cooling = self.usage.models.get(self.model)
        return self.usage.last_failure if cooling is None else max(self.usage.last_failure, cooling.last_failure)

    @property
    def counts(self) -> bool:
        """Whether it contains a failure."""
        cooling = self.usage.models.get(self.model)
        return bool(self.usage.error_count or (cooling is not None and cooling.errors))

    def agrees(self, other: "Evidence", *, now: float) -> bool:
        """Whether both agents got the same failure, the other one within an hour, and at most one of them is doubted."""
        met, theirs = (self.outcome, self.sure, self.model), (other.outcome, other.sure, other.model)
        same = met == theirs and self.outcome is not Outcome.OK
        if self.outcome is Outcome.AUTH and self.version != other.version:
            return False
        doubted = self.doubted_until > now and other.doubted_until > now
        return same and not doubted and now - other.met_at < REMEMBERED


def confirmed(evidence: Evidence, others: Iterable[Evidence], *, now: float) -> bool:
    """Whether the evidence applies to all agents."""
    return any(evidence.agrees(other, now=now) for other in others)


def disproved(evidence: Evidence, *, now: float) -> Evidence:
    """The evidence after the profile served a request nevertheless: the agent is doubted and can try again soon.

    The next failure counts as the first one.
    """
    usage, soon = evidence.usage, evidence.usage.last_failure + MINUTE
    first = replace(
        usage,
        rejected_until=min(usage.rejected_until, soon),
        rejections=0,
        disabled_until=min(usage.disabled_until, soon),
        error_count=0,
        failure_counts={},
        models={name: replace(cooling, errors=0) for name, cooling in usage.models.items()},
    )
    return replace(evidence, usage=first, doubted_until=now + REMEMBERED)


def relieved(evidence: Evidence, *, model: str, now: float) -> Evidence:
    """The evidence after the profile served the agent a request for the model: only other models remain."""
    left = succeeded(evidence.usage, now=now, model=model)
    if not left.models:
        return Evidence(doubted_until=evidence.doubted_until)
    outcome = evidence.outcome if evidence.model in left.models else Outcome.OK
    return replace(evidence, outcome=outcome, usage=left)


def overlaid(usage: Usage, evidence: Evidence, version: int) -> Usage:
    """The usage of a profile as it applies to the agent of the evidence."""
    own = evidence.usage
    models = {**usage.models, **{m: met for m, met in own.models.items() if met.until > usage.model_until(m)}}
    seen = replace(usage, cooldown_until=max(usage.cooldown_until, own.cooldown_until), models=models)
    if own.disabled_until > usage.disabled_until:
        seen = replace(seen, disabled_until=own.disabled_until, disabled_reason=own.disabled_reason)
    refused = own.rejected and own.rejected_version == version
    known = usage.rejected and usage.rejected_version == version
    if not refused or (known and usage.rejected_until >= own.rejected_until):
        return seen
    return replace(
        seen,
        rejected=own.rejected,
        rejected_version=version,
        rejected_until=own.rejected_until,
        rejections=own.rejections,
    )
