"""The log: JSON objects for programs, one for each line, or lines of text for a person. Neither has a secret.

    {"ts": "2026-11-22T16:40:00.123Z", "level": "info", "logger": "equabot_broker.engine", "message": "…", …fields}

An exception is logged with its type and its places (`file:line function`), without source lines and values. Its text is logged
only if it is the broker's own (`BrokerError`, `CannotStart`). The log also has what Python would otherwise print. These are
warnings, messages of loggers without a handler, and uncaught exceptions of the process, threads, the event loop and finalizers.
"""

import asyncio
import logging
import os
import re
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from json import dumps
from types import TracebackType
from typing import Any, Final, TextIO

from equabot_broker.domain.instants import rfc3339
from equabot_broker.telemetry._failure import failure, failure_lines
from equabot_broker.telemetry.redaction import Redactor, safe_text

OURS: Final = ("equabot_broker", "equabot", "equabot_client")
"""Loggers that have the configured level. Others log warnings and errors only: at lower levels, HTTP and Kubernetes clients log
what they send and receive."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "failure"}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_log: Final = logging.getLogger(__name__)


def configure(level: int | str, *, json: bool, stream: TextIO, redactor: Redactor | None = None) -> Redactor:
    """Sends all log messages, and what Python would otherwise print, to the stream. Returns the redactor, which the
    caller connects to the live secrets. A second call replaces the first one.

    `level` is a name in upper or lower case, or a number, for our own loggers. Raises ValueError for an unknown level.
    """
    redactor = redactor or Redactor()
    handler = _Handler(stream)
    handler.addFilter(_Redacting(redactor))
    handler.setFormatter(_JsonLines() if json else _Text())
    ours = logging.getLogger(OURS[0])
    ours.setLevel(level.upper() if isinstance(level, str) else level)
    for name in OURS[1:]:
        logging.getLogger(name).setLevel(ours.level)
    root = logging.getLogger()
    root.setLevel(max(ours.level, logging.WARNING))
    root.handlers[:] = [handler]
    for known in list(root.manager.loggerDict.values()):
        if isinstance(known, logging.Logger):
            known.handlers.clear()
            known.propagate = True
    logging.lastResort = handler
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread
    # The tracing of gRPC prints headers and bodies to standard error, and no filter sees them.
    os.unsetenv("GRPC_TRACE")
    os.unsetenv("GRPC_VERBOSITY")
    return redactor


def loop_exception_handler(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """For `loop.set_exception_handler`. Logs what happened and where, without the objects, whose `repr` can show anything."""
    tasks = [context.get(key) for key in ("task", "future")]
    names = [task.get_name() for task in tasks if isinstance(task, asyncio.Task)]
    # The text in brackets has the arguments of a callback.
    message = str(context.get("message", "error in the event loop")).partition("(")[0]
    _log.error("%s", message, exc_info=context.get("exception"), extra={"task": names[0]} if names else None)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        where = args.thread.name if args.thread is not None else "unknown"
        _log.critical("uncaught exception in a thread", exc_info=args.exc_value, extra={"thread_name": where})


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    _log.error("exception in a finalizer", exc_info=args.exc_value, extra={"of": type(args.object).__name__})


class _Handler(logging.StreamHandler[TextIO]):
    """Writes lines. A record that cannot be written is reported without its content."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        error = sys.exc_info()[0]
        why = f"a record of {record.name} could not be written ({error.__name__ if error else 'unknown'})"
        entry = {
            "ts": _instant(record),
            "level": "error",
            "logger": __name__,
            "message": f"{why}: see {record.filename}:{record.lineno}",
        }
        try:
            self.stream.write(dumps(entry) + self.terminator)
        except (OSError, ValueError):
            return  # the stream is closed, so there is no place for a report


class _Redacting(logging.Filter):
    """Removes secrets from the record, and everything that could print a secret later."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def filter(self, record: logging.LogRecord) -> bool:
        extras = vars(record).keys() - _STANDARD
        try:
            record.msg = self._message(record)
            for name in extras:
                setattr(record, name, self._redactor.clean_entry(name, vars(record)[name]))
            if record.exc_info and record.exc_info[1] is not None:
                vars(record)["failure"] = failure(record.exc_info[1], self._redactor)
        except Exception as error:  # noqa: BLE001 - no record leaves with a secret, and no log call raises
            record.msg = f"a record could not be redacted ({type(error).__name__}): see {record.filename}:{record.lineno}"
            for name in extras:
                delattr(record, name)
        record.args = ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True

    def _message(self, record: logging.LogRecord) -> str:
        message = record.msg if isinstance(record.msg, str) else safe_text(record.msg)
        if record.args:
            try:
                message %= self._arguments(record.args)
            except (TypeError, ValueError, KeyError):
                message = f"{message} (the arguments do not match the format)"
        return self._redactor.text(message)

    def _arguments(self, args: tuple[object, ...] | Mapping[str, object]) -> object:
        if isinstance(args, Mapping):
            return {name: self._redactor.clean(value) for name, value in args.items()}
        return tuple(self._redactor.clean(value) for value in args)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _instant(record: logging.LogRecord) -> str:
    return rfc3339(record.created)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "ts": _instant(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in _fields(record).items() if name not in entry}
        if "failure" in vars(record):
            entry["exception"] = vars(record)["failure"]
        return dumps(entry, ensure_ascii=False, separators=(",", ":"))


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = "".join(f"  {name}={_plain(value)}" for name, value in _fields(record).items())
        line = _one_line(f"{at} {record.levelname.lower():<8} {record.name}: {record.getMessage()}{fields}")
        return "\n".join([line, *map(_one_line, failure_lines(vars(record).get("failure")))])


def _plain(value: object) -> str:
    return value if isinstance(value, str) and value and " " not in value else dumps(value, ensure_ascii=False)


def _one_line(text: str) -> str:
    # A text from outside must not start a line, and must not move the cursor of a terminal.
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
