"""The login of another tool, from that tool's file. When the tool refreshes the login, the new one is served."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import SourceFault, Unit
from equabot_broker.files.reading import DETACHED, read_some
from equabot_broker.formats.tool_logins import SIZE_MAX, TOOLS, Tool, read_login
from equabot_broker.schema.key_readers import BOOLEAN, PATH
from equabot_broker.schema.reading import ConfigKey
from equabot_broker.sources._reading import changed_at
from equabot_broker.sources._single_file import SingleFile
from equabot_broker.sources._watching import Watch
from equabot_broker.sources.declaration import DefaultPlaces, SourceContext, SourceKind, SourceOptions


@dataclass(frozen=True, slots=True)
class ToolLoginOptions:
    """`kind` is the name of the kind of source. `path` is absolute."""

    kind: str
    tool: Tool
    path: Path


class ToolLogin(SingleFile):
    """The source `<kind> <path>`."""

    def __init__(self, options: ToolLoginOptions, *, rules: DiscoveryRules, watch: Watch) -> None:
        super().__init__(options.kind, options.path, watch)
        self._tool = options.tool
        self._rules = rules

    def _unit(self) -> Unit:
        at = changed_at(self._path)
        contents = read_some(self._path, limit=SIZE_MAX)
        unit = read_login(
            self._tool,
            contents.data,
            changed_at=at,
            rules=self._rules,
            source=self.name,
            unit="",
            origin=str(self._path),
        )
        if not contents.detached:
            return unit
        return replace(unit, faults=(*unit.faults, SourceFault(self.name, f"{self._path} {DETACHED}")))


def _kind(name: str, tool: Tool) -> SourceKind:
    usual = f"~/{tool.folder}/{tool.file}"

    def place(places: DefaultPlaces) -> Path:
        return places.directories.get(tool.folder_variable, places.user_home / tool.folder) / tool.file

    def build(options: SourceOptions, context: SourceContext) -> ToolLogin:
        chosen = ToolLoginOptions(name, tool, options["path"])
        return ToolLogin(chosen, rules=context.rules, watch=Watch(context.clock))

    return SourceKind(
        name=name,
        means=f"The login of another command-line tool, from its file (`{name}`).",
        keys={
            "path": ConfigKey(PATH, "The file of the login.", default=usual, example=usual),
            "refresh": ConfigKey(
                BOOLEAN,
                "Whether the broker refreshes the login and writes the new tokens into the tool's file. Use it only if the"
                " tool itself is not used, because two programs that refresh one login invalidate it.",
                default="false",
                example="true",
            ),
        },
        place=place,
        variables=(tool.folder_variable,) if tool.folder_variable else (),
        login=tool.profile_id,
        build=build,
    )


TOOL_LOGINS: Final = tuple(_kind(name, tool) for name, tool in TOOLS.items())
