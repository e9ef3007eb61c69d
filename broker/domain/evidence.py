"""One agent's answers are one agent's: what its traffic says of a profile that others may have as well.

A failure holds for the agent that met it, at once. It counts for the others when another agent has met the same, or when the
broker's own request is answered so. An agent whose failure was disproved is doubted for an hour: its word and that of another
doubted one together count for nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from broker.domain.cooldowns import HOUR, MINUTE, Outcome, Usage

REMEMBERED: Final = HOUR
"""Seconds for which a failure is evidence, and for which a disproved one makes its agent doubted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one agent's traffic says of one profile: its last failure, and the `usage` that this comes to for the agent.

    `refused` is the version of a login whose access token it saw refused. Instants in seconds since the epoch.
    """

    outcome: Outcome = Outcome.OK
    sure: bool = True
    version: int = 0
    usage: Usage = field(default_factory=Usage)
    refused: int = 0
    doubted_until: float = 0.0

    def lapses_at(self) -> float:
        """When it says nothing more."""
        usage = self.usage
        held = (usage.cooldown_until, usage.disabled_until, usage.rejected_until, self.doubted_until)
        return max(*held, usage.last_failure + REMEMBERED if usage.last_failure else 0.0)

    def agrees(self, other: "Evidence", *, now: float) -> bool:
        """Whether the two agents, the other one within the last hour, have met the same, and not both of them are doubted."""
        same = (other.outcome, other.sure) == (self.outcome, self.sure) and self.outcome is not Outcome.OK
        if self.outcome is Outcome.AUTH and self.version != other.version:
            return False
        doubted = self.doubted_until > now and other.doubted_until > now
        return same and not doubted and now - other.usage.last_failure < REMEMBERED


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
    )
    return replace(evidence, usage=first, doubted_until=now + REMEMBERED)


def overlaid(usage: Usage, evidence: Evidence, version: int) -> Usage:
    """What is remembered of a profile's use, as the agent of the evidence is to see it."""
    own = evidence.usage
    seen = replace(usage, cooldown_until=max(usage.cooldown_until, own.cooldown_until))
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
