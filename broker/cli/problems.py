"""What `equabot doctor` finds: a finding, and how it may be mended without asking anybody."""

from collections.abc import Callable
from dataclasses import dataclass

from broker.domain.findings import Finding, Severity


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding, and what would mend it: a function that does that and says what it did. It raises Failure and OSError."""

    finding: Finding
    fix: Callable[[], str] | None = None


FIX = "equabot doctor --fix"


def problem(
    severity: Severity, subject: object, message: str, remedy: str = "", *, fix: Callable[[], str] | None = None
) -> Problem:
    """The same, written shorter."""
    return Problem(Finding(severity=severity, subject=str(subject), message=message, remedy=remedy), fix)
