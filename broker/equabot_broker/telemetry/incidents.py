"""What happens that no part foresaw: counted by port, logged with its places and without its values, and named by a number.

A port is where the broker meets something that is not its own: a file, an endpoint, a sink. What comes out of one and is not in
the broker's own error tree ends there, as a fault of that source, profile, endpoint or sink, whose text has the number.
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
"""What an incident is counted under."""

_KEPT: Final = 256
"""Incidents that are recognised when they come again. The log has each the first time, the second, the fourth, and so on."""
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Incident:
    """Something unforeseen. As a text it follows a colon; `kind` is the exception's type, with the system's words for it."""

    number: str
    kind: str

    def __str__(self) -> str:
        return f"an unexpected fault ({self.kind}), incident {self.number} in the broker's log"


class Incidents:
    """Those of a process. Any thread may report one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[str] = Counter()
        self._known: OrderedDict[tuple[str, ...], tuple[Incident, int]] = OrderedDict()

    def report(self, port: str, subject: str, error: BaseException) -> Incident:
        """Counts and logs it. The same from the same place keeps its number."""
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
            _log.error("incident %s: again, for the %d. time", found.number, times + 1)
        return found

    def count(self, port: str) -> None:
        """Counts one that is logged elsewhere."""
        with self._lock:
            self._counts[port] += 1

    def counts(self) -> dict[str, int]:
        """How many there were, by port."""
        with self._lock:
            return {port: self._counts[port] for port in PORTS}


_ALL: Final = Incidents()


def incident(port: str, subject: str, error: BaseException) -> Incident:
    """Counts and logs an exception that came out of a port, one of `PORTS`; `subject` names the source, profile or sink."""
    return _ALL.report(port, subject, error)


def count(port: str) -> None:
    """Counts an incident that its finder logs."""
    _ALL.count(port)


def counts() -> dict[str, int]:
    """How many incidents this process has had, by port."""
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
    """The type, and the system's own words for an error number: nothing that who raised it has written."""
    name = type(error).__name__
    known = isinstance(error, OSError) and error.errno in errno.errorcode
    return f"{name}: {os.strerror(error.errno or 0)}" if known and isinstance(error, OSError) else name


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
