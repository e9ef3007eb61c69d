"""One agent's answers are one agent's: what its traffic says of a profile that others may have as well.

A failure holds for the agent that met it, at once. It counts for the others when another agent has met the same, or when the
broker's own request is answered so. An agent whose failure was disproved is doubted for an hour: its word and that of another
doubted one together count for nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome, Usage, succeeded

REMEMBERED: Final = HOUR
"""Seconds for which a failure is evidence, and for which a disproved one makes its agent doubted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one agent's traffic says of one profile: its last failure, and the `usage` that this comes to for the agent.

    `model` is the one that failure is about; empty: about the whole profile. `refused` is the version of a login whose access
    token it saw refused. Instants in seconds since the epoch.
    """

    outcome: Outcome = Outcome.OK
    sure: bool = True
    version: int = 0
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    refused: int = 0
    doubted_until: float = 0.0

    def lapses_at(self) -> float:
        """When it says nothing more."""
        usage = self.usage
        held = [usage.cooldown_until, usage.disabled_until, usage.rejected_until, self.doubted_until]
        held += [cooling.until for cooling in usage.models.values()]
        return max(*held, self.met_at + REMEMBERED if self.met_at else 0.0)

    @property
    def met_at(self) -> float:
        """When the last failure was met; 0: there was none."""
        cooling = self.usage.models.get(self.model)
        return self.usage.last_failure if cooling is None else max(self.usage.last_failure, cooling.last_failure)

    @property
    def counts(self) -> bool:
        """Whether a failure is counted in it."""
        cooling = self.usage.models.get(self.model)
        return bool(self.usage.error_count or (cooling is not None and cooling.errors))

    def agrees(self, other: "Evidence", *, now: float) -> bool:
        """Whether the two agents, the other one within the last hour, have met the same, and not both of them are doubted."""
        met, theirs = (self.outcome, self.sure, self.model), (other.outcome, other.sure, other.model)
        same = met == theirs and self.outcome is not Outcome.OK
        if self.outcome is Outcome.AUTH and self.version != other.version:
            return False
        doubted = self.doubted_until > now and other.doubted_until > now
        return same and not doubted and now - other.met_at < REMEMBERED


def confirmed(evidence: Evidence, others: Iterable[Evidence], *, now: float) -> bool:
    """Whether what the evidence says counts for every agent."""
    return any(evidence.agrees(other, now=now) for other in others)


def disproved(evidence: Evidence, *, now: float) -> Evidence:
    """After the profile has served a request all the same: its agent is doubted, and need not wait long to try again. The next
    failure is a first one."""
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
    """After the profile has served its agent a request for the model: of what it has met, other models are left."""
    left = succeeded(evidence.usage, now=now, model=model)
    if not left.models:
        return Evidence(doubted_until=evidence.doubted_until)
    outcome = evidence.outcome if evidence.model in left.models else Outcome.OK
    return replace(evidence, outcome=outcome, usage=left)


def overlaid(usage: Usage, evidence: Evidence, version: int) -> Usage:
    """What is remembered of a profile's use, as the agent of the evidence is to see it."""
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
