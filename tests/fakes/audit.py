"""An audit log that keeps what it hears, or refuses to."""

from equabot_broker.domain.errors import AuditUnavailable
from equabot_broker.telemetry.events import Event


class MemoryAudit:
    """Fulfils `ports.AuditSink`, and is a sink for `Events`. While `fault` says why, nothing can be recorded; then
    `fail_closed` makes it refuse."""

    def __init__(self, *, fail_closed: bool = False) -> None:
        self.fail_closed = fail_closed
        self.fault = ""
        self.doubt = ""
        self.anchor_write_fault = ""
        self.heard: list[Event] = []
        self.refused: list[Event] = []

    @property
    def refuses(self) -> bool:
        """Whether nothing may be granted now."""
        return self.fail_closed and bool(self.fault or self.doubt)

    def accept(self) -> str:
        """No more doubt."""
        accepted, self.doubt = self.doubt, ""
        return accepted

    def record(self, event: Event) -> None:
        """Keeps it. Raises AuditUnavailable for what is granting, while it refuses."""
        if event.granting and self.refuses:
            self.refused.append(event)
            raise AuditUnavailable(self.fault or self.doubt)
        if not self.fault:
            self.heard.append(event)
