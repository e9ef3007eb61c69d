"""Notifying listeners: one that fails keeps no other from being notified, and does not stop its caller."""

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, ParamSpec, TypeVar

from equabot_broker.telemetry.incidents import incident

P = ParamSpec("P")
K = TypeVar("K", bound=Hashable)


def notify(listeners: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Calls each, in order. What one raises is an incident of that listener."""
    for listener in listeners:
        try:
            listener(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a port: the others have to be notified
            incident("listener", getattr(listener, "__qualname__", "unknown"), error)


class ChangeQueue(Generic[K]):
    """Names of what has changed. `listeners` are notified of one change after the other, also when one of them causes the next:
    a change that is made while they are called waits until all of them know the one before it."""

    __slots__ = ("_notifying", "_waiting", "listeners")

    def __init__(self) -> None:
        self.listeners: list[Callable[[frozenset[K]], None]] = []
        self._waiting: set[K] = set()
        self._notifying = False

    def __bool__(self) -> bool:
        """Whether a change waits."""
        return bool(self._waiting)

    def add(self, keys: Iterable[K]) -> None:
        """These have changed; listeners are notified by the next `send`."""
        self._waiting.update(keys)

    def send(self) -> None:
        """Notifies the listeners of what waits. Does nothing while they are being notified: that call goes on with it."""
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
