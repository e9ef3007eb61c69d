"""The base class of sources of one file. It follows the path, including links on the way."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from equabot_broker.domain.material import SourceEvent, SourceUnavailable, Unit, UnitsListed
from equabot_broker.files.reading import Unreadable
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.sources._watching import Changes, Watch


class SingleFile:
    """A source with one unit, named "". A missing file is an empty source. A file that cannot be read or parsed makes the
    source unavailable."""

    def __init__(self, kind: str, path: Path, watch: Watch) -> None:
        self.name = f"{kind} {path}"
        self._path = path
        self._watch = watch
        self._found: SourceEvent = UnitsListed(())

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """The content of the file, and then each change of it."""
        served: SourceEvent | None = None
        async with aclosing(self._watch.rounds(self._read)) as rounds:
            async for changes in rounds:
                if changes.asked or self._found != served:
                    served = self._found
                    yield served

    def reread(self) -> None:
        """Reads it again."""
        self._watch.ask()

    def _unit(self) -> Unit:
        """Reads the file. Raises FileNotFoundError, Unreadable and Malformed."""
        raise NotImplementedError

    def _read(self, _: Changes) -> None:
        with self._watch.interests(""):
            self._watch.path("", self._path)
            try:
                self._found = UnitsListed((self._unit(),))
            except FileNotFoundError:
                self._found = UnitsListed(())
            except Unreadable as fault:
                self._found = SourceUnavailable(str(fault))
                self._watch.unread("")
            except Malformed as malformed:
                self._found = SourceUnavailable(f"{self._path} is not usable: {malformed}")
