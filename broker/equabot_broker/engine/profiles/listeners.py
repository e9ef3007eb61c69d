"""Telling those who asked to hear of a change: one who fails keeps no other from hearing of it, and not the one who tells."""

from collections.abc import Callable, Iterable
from typing import ParamSpec

from equabot_broker.telemetry.incidents import incident

P = ParamSpec("P")


def notify(listeners: Iterable[Callable[P, None]], *args: P.args, **kwargs: P.kwargs) -> None:
    """Calls each, in order. What one raises is an incident of that listener."""
    for listener in listeners:
        try:
            listener(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - a port: the others have to hear of it
            incident("listener", getattr(listener, "__qualname__", "unknown"), error)
