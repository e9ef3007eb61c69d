"""An exception as the log may tell it: type, places, causes; its text only where it is ours."""

import traceback
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from equabot_broker.domain.errors import BrokerError, CannotStart
from equabot_broker.telemetry.redaction import Redactor, told

_FRAMES: Final = 30
_DEPTH: Final = 5


def failure(error: BaseException, redactor: Redactor, *, depth: int = _DEPTH) -> dict[str, Any]:
    """`{type, message?, frames: ["file:line function"], cause?, group?}`, innermost frame last."""
    kind = type(error)
    found: dict[str, Any] = {"type": kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"}
    if isinstance(error, (BrokerError, CannotStart)) or (isinstance(error, OSError) and error.errno is not None):
        found["message"] = redactor.text(told(error))
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


def failure_lines(told_of: Mapping[str, Any] | None, indent: str = "  ") -> Iterator[str]:
    """The same for a person, a line each."""
    if told_of is None:
        return
    yield f"{indent}{told_of['type']}{': ' if 'message' in told_of else ''}{told_of.get('message', '')}"
    for frame in told_of["frames"]:
        yield f"{indent}  at {frame}"
    for one in told_of.get("group", ()):
        yield from failure_lines(one, indent + "  ")
    if "cause" in told_of:
        yield f"{indent}caused by"
        yield from failure_lines(told_of["cause"], indent)


def _frame(file: str, line: int, function: str) -> str:
    return f"{'/'.join(PurePath(file).parts[-3:])}:{line} {function}"
