"""The log of events, at the level that each event declares."""

import logging
from dataclasses import fields
from functools import cache
from typing import Final

from equabot_broker.telemetry.events import Event

_log: Final = logging.getLogger("equabot.events")

_UNLOGGED: Final = frozenset({"lease", "session"})
"""A program that has a lease's id can use the lease from the socket of its agent. An agent can put any text in the name of a
session. Only the audit log has both."""
_OPTIONAL: Final = frozenset({"profiles", "agent"})
"""Fields that are left out if they are empty."""


def log_event(event: Event) -> None:
    """Logs the event with its fields. A sink for `Events`."""
    level = event.log_level()
    if level and _log.isEnabledFor(level):
        shown = {name: getattr(event, name) for name in _logged(type(event))}  # type: ignore[arg-type]  # mypy: a class is hashable
        extra = {name: value for name, value in shown.items() if not (name in _OPTIONAL and value in ("", ()))}
        _log.log(level, event.log_message(), extra=extra)


@cache
def _logged(kind: type[Event]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind) if field.name not in _UNLOGGED)
