"""One `.env` file, followed wherever its name leads: replaced, rewritten, created later, deleted."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from equabot_broker.domain.discovery import DiscoveryRules
from equabot_broker.domain.material import SourceEvent, SourceFault, SourceUnavailable, UnitsListed
from equabot_broker.domain.unknown_names import misnamed, notes, unknown_names
from equabot_broker.files.dotenv import SIZE_MAX
from equabot_broker.files.reading import DETACHED, Contents, Pipe, StandingFault, Unreadable, read_some
from equabot_broker.sources._variables import parse_dotenv, with_doubts
from equabot_broker.sources._watching import Changes, Watch

_PASSWORD_MANAGER: Final = (
    "Where a password manager feeds it (1Password), start the broker with its variables: `set -a; . FILE; equabot serve`"
)


@dataclass(frozen=True, slots=True)
class DotenvOptions:
    """`path` is absolute."""

    path: Path


class Dotenv:
    """The source `dotenv <path>`. One unit, named "". A file that is not there holds nothing; one that cannot be read makes the
    source unavailable; a line that cannot be understood is a fault of the unit, and its other lines serve."""

    def __init__(self, options: DotenvOptions, *, rules: DiscoveryRules, watch: Watch) -> None:
        self.name = f"dotenv {options.path}"
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
                self._found = self._parse(read_some(self._path, limit=SIZE_MAX))
            except FileNotFoundError:
                self._found = UnitsListed(())
            except Pipe as pipe:
                self._found = SourceUnavailable(f"{pipe}. {_PASSWORD_MANAGER}")
                self._watch.unread("")
            except Unreadable as fault:
                self._found = SourceUnavailable(str(fault))
                self._watch.unread("")

    def _parse(self, contents: Contents) -> UnitsListed:
        found = parse_dotenv(contents.data, shown=self._path, wants=lambda key: self._rules.wants(key, kind="dotenv"))
        if found.doubts and not found.values:  # maybe a mistake of the moment: what was good is served until then
            raise StandingFault(self._path, "assigns nothing", "; ".join(found.doubts))
        unit = self._rules.discover(
            found.values, kind="dotenv", source=self.name, unit="", name="dotenv", origin=lambda key: f"{self._path} {key}"
        )
        unknown = unknown_names(found.values, self._rules, kind="dotenv")
        told = notes(unknown, self._rules.catalog, where=lambda key: f"{self._path} {key}")
        told += misnamed(found.values, self._rules, kind="dotenv", where=lambda key: f"{self._path} {key}")
        told += tuple(
            SourceFault(f"{self._path} {key}", f"{self._path} {key} has no value: write {key}=value") for key in found.bare
        )
        unit = replace(unit, notes=told)
        doubts = (*found.doubts, DETACHED) if contents.detached else found.doubts
        return UnitsListed((with_doubts(unit, doubts, shown=self._path, source=self.name),))
