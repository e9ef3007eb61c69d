"""What the page shows now, by section, and the viewers that hear of each change (server-sent events)."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from equabot_broker.parsing.untrusted_json import Json

VIEWERS: Final = 8
"""So many streams at once. One more ends the oldest."""
_UNSENT: Final = 4 << 20
"""Bytes that may wait for a viewer that does not read."""


class Viewer(Protocol):
    """One stream."""

    def send(self, data: bytes) -> int:
        """Sends; returns how many bytes wait."""

    def end(self) -> None:
        """Ends the stream at once."""


class Board:
    """`redact` takes out of every text what looks like a secret: nothing that is shown goes around it."""

    def __init__(self, *, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._events: dict[str, bytes] = {}
        self._viewers: dict[Viewer, None] = {}
        self.arrived = asyncio.Event()
        """Set by each new viewer."""

    @property
    def watched(self) -> bool:
        """Whether anyone looks."""
        return bool(self._viewers)

    def publish(self, section: str, value: Json) -> None:
        """Shows it, if it differs from what is shown."""
        event = f"event: {section}\ndata: {json.dumps(_cleaned(value, self._redact))}\n\n".encode()
        if self._events.get(section) != event:
            self._events[section] = event
            for viewer in tuple(self._viewers):
                self._send(viewer, event)

    def add(self, viewer: Viewer) -> None:
        """A viewer, who gets every section."""
        if len(self._viewers) >= VIEWERS:
            oldest = next(iter(self._viewers))
            self.remove(oldest)
            oldest.end()
        self._viewers[viewer] = None
        self.arrived.set()
        self._send(viewer, b"retry: 1000\n\n" + b"".join(self._events.values()))

    def remove(self, viewer: Viewer) -> None:
        """Forgets a viewer. May be called again."""
        self._viewers.pop(viewer, None)

    def __iter__(self) -> Iterator[Viewer]:
        return iter(tuple(self._viewers))

    def _send(self, viewer: Viewer, data: bytes) -> None:
        if viewer.send(data) > _UNSENT:
            self.remove(viewer)
            viewer.end()


def _cleaned(value: Json, redact: Callable[[str], str]) -> Json:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(name): _cleaned(inner, redact) for name, inner in value.items()}
    return [_cleaned(inner, redact) for inner in value] if isinstance(value, list) else value
