"""An exception for the log: its type, places and causes. Its text is included only for the broker's own exceptions."""

import traceback
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from equabot_broker.domain.errors import BrokerError, CannotStart
from equabot_broker.telemetry.redaction import Redactor, safe_text

_FRAMES: Final = 30
_DEPTH: Final = 5


def failure(error: BaseException, redactor: Redactor, *, depth: int = _DEPTH) -> dict[str, Any]:
    """Returns `{type, message?, frames: ["file:line function"], cause?, group?}`. The innermost frame is the last one."""
    kind = type(error)
    found: dict[str, Any] = {"type": kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"}
    if isinstance(error, (BrokerError, CannotStart)) or (isinstance(error, OSError) and error.errno is not None):
        found["message"] = redactor.text(safe_text(error))
    frames = [_frame(frame.f_code.co_filename, line, frame.f_code.co_qualname) for frame, line in
              traceback.walk_tb(error.__traceback__)]  # fmt: skip
    found["frames"] = frames[-_FRAMES:]
    if depth:
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            found["cause"] = failure(cause, redactor, depth=depth - 1)
        if isinstance(error, BaseExceptionGroup):
            found["group"] = [failure(one, redactor, depth=depth - 1) for one in error.exceptions[:10]]
    return found


def failure_lines(entry: Mapping[str, Any] | None, indent: str = "  ") -> Iterator[str]:
    """The lines of a failure for a person."""
    if entry is None:
        return
    yield f"{indent}{entry['type']}{': ' if 'message' in entry else ''}{entry.get('message', '')}"
    for frame in entry["frames"]:
        yield f"{indent}  at {frame}"
    for one in entry.get("group", ()):
        yield from failure_lines(one, indent + "  ")
    if "cause" in entry:
        yield f"{indent}caused by"
        yield from failure_lines(entry["cause"], indent)


def _frame(file: str, line: int, function: str) -> str:
    return f"{'/'.join(PurePath(file).parts[-3:])}:{line} {function}"
