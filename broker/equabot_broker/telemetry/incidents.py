"""Incidents: unexpected exceptions. They are counted by port, logged with places and without values, and have a number.

A port is a place where the broker uses something outside it: a file, an endpoint, a sink. An exception that comes out of a port
and is not one of the broker's own ends there. It becomes a fault of that source, profile, endpoint or sink, and the text of the
fault has the number of the incident (ADR 25).
"""

import errno
import logging
import os
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from threading import Lock
from typing import Final

_log: Final = logging.getLogger("equabot.incidents")

PORTS: Final = (
    "call", "listener", "probe", "profile_store", "sink", "source", "state", "task", "token_endpoint",
)  # fmt: skip
"""The values of the label `port` of the metric."""

_KEPT: Final = 256
"""Incidents that are recognised when they occur again. The log has the first, second, fourth, eighth… occurrence of each."""
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Incident:
    """An unexpected exception. Its text follows a colon. `kind` is the type of the exception, with the system's text for it."""

    number: str
    kind: str

    def __str__(self) -> str:
        return f"an unexpected fault ({self.kind}), incident {self.number} in the broker's log"


class Incidents:
    """The incidents of a process. Any thread may report one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._known: OrderedDict[tuple[str, ...], tuple[Incident, int]] = OrderedDict()

    def report(self, port: str, subject: str, error: BaseException) -> Incident:
        """Counts and logs the exception. The same exception from the same place has the same number."""
        kind, place = _kind(error), _place(error)
        with self._lock:
            self._counts[port] += 1
            found, times = self._known.pop((port, subject, kind, place), (Incident(token_hex(4), kind), 0))
            self._known[port, subject, kind, place] = (found, times + 1)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        if not times:
            _log.error("incident %s: an unexpected fault of %s %s", found.number, port, subject, exc_info=error)
        elif not times & (times + 1):
            _log.error("incident %s: occurrence %d", found.number, times + 1)
        return found

    def count(self, port: str) -> None:
        """Counts an incident that the caller logs."""
        with self._lock:
            self._counts[port] += 1

    def counts(self) -> dict[str, int]:
        """The number of incidents, by port."""
        with self._lock:
            return {port: self._counts[port] for port in PORTS}


_ALL: Final = Incidents()


def incident(port: str, subject: str, error: BaseException) -> Incident:
    """Counts and logs an exception that came out of a port, one of `PORTS`. `subject` names the source, profile or sink."""
    return _ALL.report(port, subject, error)


def count(port: str) -> None:
    """Counts an incident that the caller logs."""
    _ALL.count(port)


def counts() -> dict[str, int]:
    """The number of incidents of this process, by port."""
    return _ALL.counts()


def _kind(error: BaseException) -> str:
    names = list(dict.fromkeys(map(_name, _leaves(error))))
    more = ", …" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _name(error: BaseException) -> str:
    """The type, and the system's text for an error number. Never the exception's own text."""
    name = type(error).__name__
    known = isinstance(error, OSError) and error.errno in errno.errorcode
    return f"{name}: {os.strerror(error.errno or 0)}" if known and isinstance(error, OSError) else name


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
