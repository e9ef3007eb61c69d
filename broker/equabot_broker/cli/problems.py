"""A problem that `equabot doctor` finds: a finding, with a fix if a safe one exists."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from equabot_broker.diagnosis.findings import Finding, Severity

if TYPE_CHECKING:
    from equabot_client.admin import Finding as Reported


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding and its fix: a function that applies the fix and returns what it did. It raises Failure and OSError."""

    finding: Finding
    fix: Callable[[], str] | None = None


FIX = "equabot doctor --fix"


def plain(finding: "Finding | Reported") -> dict[str, str]:
    """The finding as JSON, its fields by their names on the wire."""
    severity = finding.severity.value if isinstance(finding.severity, Severity) else finding.severity
    return {"severity": severity, "subject": finding.subject, "message": finding.message, "remedy": finding.remedy}


def problem(
    severity: Severity, subject: object, message: str, remedy: str = "", *, fix: Callable[[], str] | None = None
) -> Problem:
    """Builds a problem from the fields of its finding."""
    return Problem(Finding(severity=severity, subject=str(subject), message=message, remedy=remedy), fix)
