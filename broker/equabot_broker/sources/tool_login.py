"""The login of another tool, from its own file: whenever that tool refreshes it, the new one is served."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from equabot_broker.domain.discovery import DiscoveryRules
from equabot_broker.domain.material import SourceEvent, SourceFault, SourceUnavailable, UnitsListed
from equabot_broker.domain.untrusted_json import Malformed
from equabot_broker.files.reading import DETACHED, Unreadable, read_some
from equabot_broker.formats.tool_logins import SIZE_MAX, Tool, read_login
from equabot_broker.sources._reading import changed_at
from equabot_broker.sources._watching import Changes, Watch


@dataclass(frozen=True, slots=True)
class ToolLoginOptions:
    """`kind` is what the source is called; `path` is absolute."""

    kind: str
    tool: Tool
    path: Path


class ToolLogin:
    """The source `<kind> <path>`. One unit, named "". A file that is not there holds nothing; one that cannot be read or
    understood makes the source unavailable."""

    def __init__(self, options: ToolLoginOptions, *, rules: DiscoveryRules, watch: Watch) -> None:
        self.name = f"{options.kind} {options.path}"
        self._tool = options.tool
        self._path = options.path
        self._rules = rules
        self._watch = watch
        self._found: SourceEvent = UnitsListed(())

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """What the file holds, and then every other thing it comes to hold."""
        served: SourceEvent | None = None
        async with aclosing(self._watch.rounds(self._read)) as rounds:
            async for changes in rounds:
                if changes.asked or self._found != served:
                    served = self._found
                    yield served

    def reread(self) -> None:
        """Reads it again."""
        self._watch.ask()

    def _read(self, _: Changes) -> None:
        with self._watch.interests(""):
            self._watch.path("", self._path)
            try:
                at = changed_at(self._path)
                contents = read_some(self._path, limit=SIZE_MAX)
                data, origin = contents.data, str(self._path)
                unit = read_login(self._tool, data, changed_at=at, rules=self._rules, source=self.name, unit="", origin=origin)
                if contents.detached:
                    unit = replace(unit, faults=(*unit.faults, SourceFault(self.name, f"{self._path} {DETACHED}")))
                self._found = UnitsListed((unit,))
            except FileNotFoundError:
                self._found = UnitsListed(())
            except Unreadable as fault:
                self._found = SourceUnavailable(str(fault))
                self._watch.unread("")
            except Malformed as malformed:
                self._found = SourceUnavailable(f"{self._path} is not usable: {malformed}")
