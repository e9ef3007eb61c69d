"""One `.env` file. It is followed while it is replaced, rewritten, created later or deleted."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.discovery.unknown_names import misnamed, notes, unknown_names
from equabot_broker.domain.material import SourceFault, Unit
from equabot_broker.files.dotenv import SIZE_MAX
from equabot_broker.files.reading import DETACHED, Contents, Pipe, StandingFault, read_some
from equabot_broker.schema.key_readers import PATH, VARIABLE
from equabot_broker.schema.reading import ConfigKey
from equabot_broker.sources._single_file import SingleFile
from equabot_broker.sources._variables import parse_dotenv, with_doubts
from equabot_broker.sources._watching import Watch
from equabot_broker.sources.declaration import SourceKind

KIND: Final = "dotenv"
_PASSWORD_MANAGER: Final = (
    "If a password manager such as 1Password writes it, start the broker with its variables: `set -a; . FILE; equabot serve`"
)


@dataclass(frozen=True, slots=True)
class DotenvOptions:
    """`path` is absolute."""

    path: Path


class Dotenv(SingleFile):
    """The source `dotenv <path>`. A line that cannot be parsed is a fault of the unit, and the other lines are used."""

    def __init__(self, options: DotenvOptions, *, rules: DiscoveryRules, watch: Watch) -> None:
        super().__init__(KIND, options.path, watch)
        self._rules = rules

    def _unit(self) -> Unit:
        try:
            return self._parse(read_some(self._path, limit=SIZE_MAX))
        except Pipe as pipe:
            raise StandingFault(self._path, pipe.why, f"{pipe.remedy}. {_PASSWORD_MANAGER}") from None

    def _parse(self, contents: Contents) -> Unit:
        found = parse_dotenv(contents.data, shown=self._path, wants=lambda key: self._rules.wants(key, kind=KIND))
        if found.doubts and not found.values:  # it may be half written: the last good values are served for a while
            raise StandingFault(self._path, "has no assignment", "; ".join(found.doubts))
        unit = self._rules.discover(
            found.values, kind=KIND, source=self.name, unit="", name=KIND, origin=lambda key: f"{self._path} {key}"
        )
        unknown = unknown_names(found.values, self._rules, kind=KIND)
        noted = notes(unknown, self._rules.catalog, where=lambda key: f"{self._path} {key}")
        noted += misnamed(found.values, self._rules, kind=KIND, where=lambda key: f"{self._path} {key}")
        noted += tuple(
            SourceFault(f"{self._path} {key}", f"{self._path} {key} has no value: write {key}=value") for key in found.bare
        )
        unit = replace(unit, notes=noted)
        doubts = (*found.doubts, DETACHED) if contents.detached else found.doubts
        return with_doubts(unit, doubts, shown=self._path, source=self.name)


DOTENV: Final = SourceKind(
    name=KIND,
    means="One `.env` file.",
    keys={"path": ConfigKey(PATH, "The file.", default="$EQUABOT_HOME/.env", example="~/.equabot/.env")},
    place=lambda places: places.home / ".env",
    location=ConfigKey(VARIABLE, "The variable in the `.env` file.", default="none", example="HOME_KEY"),
    build=lambda options, context: Dotenv(DotenvOptions(options["path"]), rules=context.rules, watch=Watch(context.clock)),
    last=True,
)
