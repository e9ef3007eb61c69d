"""What a fork means for the client: in the child everything begins again, with connections and leases of its own.

gRPC survives a fork where none of its threads is inside it at that moment. Its own handlers see to that, if they are registered
when gRPC is imported (`GRPC_ENABLE_FORK_SUPPORT`). They do not cover the threads that call it: one of those may hold a lock
for which the child then waits. So a fork waits until each thread in a call of the client rests, and none begins another.
gRPC's handlers wait up to a second for the thread that reads a channel, so that thread is woken first.

What the parent had open stays referenced in the child: its locks may be held by threads that the child does not have, so no
destructor may run.
"""

import functools
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

_VARIABLE: Final = "GRPC_ENABLE_FORK_SUPPORT"


class Forkable(Protocol):
    """What takes part in a fork."""

    def before_fork(self) -> None:
        """In the parent, in the thread that forks."""

    def after_fork(self) -> list[Any]:
        """In the child: begins again. Returns what the parent had open."""


_forkable: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_left: Final[list[Any]] = []
_gate = threading.RLock()
_calling: Final[set[int]] = set()
_REST_WITHIN: Final = 1.0


def register(thing: Forkable) -> None:
    """From now on the thing takes part in forks, for as long as it is referenced."""
    _forkable.add(thing)


@functools.cache
def watch() -> None:
    """After a connection was opened, when gRPC has registered its handlers: of those before a fork the last comes first."""
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


@contextmanager
def calling() -> Iterator[None]:
    """Around each use of gRPC: a fork waits until the thread rests in it, or has left."""
    thread = threading.get_ident()
    with _gate:
        _calling.add(thread)
    try:
        yield
    finally:
        _calling.discard(thread)


def _import_grpc() -> None:
    """Imports gRPC with its handlers of a fork, unless it is imported or the environment decides."""
    if "grpc" in sys.modules or _VARIABLE in os.environ:
        return
    os.environ[_VARIABLE] = "1"
    try:
        import grpc  # noqa: F401, PLC0415 - it reads the variable once, at its import
    finally:
        del os.environ[_VARIABLE]


def _before() -> None:
    _gate.acquire()
    late = time.monotonic() + _REST_WITHIN
    while not _all_rest() and time.monotonic() < late:
        time.sleep(0.0005)
    for thing in list(_forkable):
        thing.before_fork()


def _all_rest() -> bool:
    """Whether each thread that uses gRPC waits for an event, with no lock of gRPC's in hand."""
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    others = (frames.get(thread) for thread in _calling.copy() - {threading.get_ident()})
    return all(frame is None or frame.f_code is threading.Condition.wait.__code__ for frame in others)


def _after_in_parent() -> None:
    _gate.release()


def _after_in_child() -> None:
    global _gate  # noqa: PLW0603 - a thread of the parent may be waiting at the old one
    _gate = threading.RLock()
    _calling.clear()
    for thing in list(_forkable):
        _left.extend(thing.after_fork())


_import_grpc()
