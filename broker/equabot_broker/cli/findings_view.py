"""Findings at a terminal: one block per finding, with the command that ends it on a line of its own."""

from collections.abc import Sequence
from typing import Final

from equabot_broker.diagnosis.findings import Finding, Severity
from equabot_cli import output
from equabot_cli.fitting import short_path, terminal_width
from equabot_cli.output import Cell, Style

STYLES: Final = {Severity.ERROR: Style.BAD, Severity.WARNING: Style.WARN, Severity.INFO: Style.FAINT}
"""The severities, the most severe first, in their styles."""

_MARGIN: Final = " " * 9


def show_findings(findings: Sequence[Finding]) -> None:
    """Prints the findings in their order."""
    for finding in findings:
        subject, message = short_path(finding.subject), short_path(finding.message)
        head = [Cell(f"{finding.severity.value:9}", STYLES[finding.severity]), Cell(subject, Style.STRONG)]
        if len(_MARGIN) + len(subject) + 2 + len(message) <= terminal_width():
            output.line([*head, f"  {message}"])
        else:
            output.line(head)
            output.paragraph(message, first=_MARGIN, rest=_MARGIN)
        if finding.remedy:
            output.paragraph(short_path(finding.remedy), first=f"{_MARGIN}→ ", rest=f"{_MARGIN}  ")


def counted(severity: Severity, count: int) -> str:
    """`2 warnings`."""
    if severity is Severity.INFO:
        return f"{count} info"
    return f"{count} {severity.value}{'s' if count > 1 else ''}"
