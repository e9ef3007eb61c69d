"""Notifies listeners. An exception of one listener does not affect the others or the caller."""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, ParamSpec, TypeVar

from equabot_broker.telemetry.incidents import incident

P = ParamSpec("P")
K = TypeVar("K", bound=Hashable)


def notify(listeners: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Calls each listener in order. An exception is reported as an incident of that listener."""
    for listener in listeners:
        try:
            listener(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a port: the other listeners are called too
            incident("listener", getattr(listener, "__qualname__", "unknown"), error)


class ChangeQueue(Generic[K]):
    """A queue of changed keys. `listeners` get one change after the other: a change that a listener causes waits until all
    listeners have got the previous one."""

    __slots__ = ("_notifying", "_waiting", "listeners")

    def __init__(self) -> None:
        self.listeners: list[Callable[[frozenset[K]], None]] = []
        self._waiting: set[K] = set()
        self._notifying = False

    def __bool__(self) -> bool:
        """Whether a change is pending."""
        return bool(self._waiting)

    def add(self, keys: Iterable[K]) -> None:
        """Adds changed keys. The next `send` notifies the listeners."""
        self._waiting.update(keys)

    def send(self) -> None:
        """Notifies the listeners of pending changes. A nested call does nothing: the outer call continues with its changes."""
        if self._notifying:
            return
        self._notifying = True
        try:
            while self._waiting:
                keys = frozenset(self._waiting)
                self._waiting.clear()
                notify(self.listeners, keys)
        finally:
            self._notifying = False
