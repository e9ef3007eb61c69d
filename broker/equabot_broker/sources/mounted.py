"""A directory of secrets, as the kubelet or an operator mounts it. It has one file per key, and may have a `.env` and files of
logins. Each subdirectory is a Secret of its own.

The unit of an update is the directory or the subdirectory. The content of `..data` is replaced as a whole, and is read as a
whole.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.discovery.unknown_names import notes, unknown_names
from equabot_broker.domain.material import ReadUnit, SourceEvent, SourceUnavailable, Unit, UnitChanged, UnitRemoved, UnitsListed
from equabot_broker.files.confined import Folder, open_root, open_within
from equabot_broker.files.reading import Unreadable, unreadable
from equabot_broker.formats.bundles import FILES, bundle_unit
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.schema.key_readers import PATH, TEXT
from equabot_broker.schema.reading import ConfigKey, Section
from equabot_broker.sources._reading import consistently, only_files, read_bundle, subdirectories
from equabot_broker.sources._variables import with_doubts
from equabot_broker.sources._watching import Changes, Watch
from equabot_broker.sources.declaration import SourceKind
from equabot_broker.telemetry.incidents import incident

KIND: Final = "mounted"
_ROOT: Final = ""
_WATCHED: Final = frozenset({".env", "..data", *FILES})
_NOBODYS: Final = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class MountedOptions:
    """`path` is absolute."""

    path: Path


class Mounted:
    """The source `mounted <path>`. Its units are "" for the directory itself, and the subdirectories by name.

    A unit with a link to outside the directory is not read. A directory that never existed is an empty source. A directory
    that disappeared or cannot be read makes the source unavailable. If any file of a unit cannot be read, the unit fails.
    """

    def __init__(self, options: MountedOptions, *, rules: DiscoveryRules, watch: Watch) -> None:
        self.name = f"mounted {options.path}"
        self._path = options.path
        self._rules = rules
        self._watch = watch
        self._seen = False
        self._down = ""
        self._found: dict[str, ReadUnit] = {}
        self._touched: set[str] = set()

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """The content of the directory, and then one event per change, regardless of how many files changed."""
        served: dict[str, ReadUnit] | None = None
        fault = ""
        async with aclosing(self._watch.rounds(self._read)) as rounds:
            async for changes in rounds:
                touched, self._touched = self._touched, set()
                if self._down:
                    if changes.asked or self._down != fault:
                        served, fault = None, self._down
                        yield SourceUnavailable(fault)
                elif (event := self._event(None if changes.asked else served, touched)) is not None:
                    served, fault = dict(self._found), ""
                    yield event

    def reread(self) -> None:
        """Reads all of it again."""
        self._watch.ask()

    def _event(self, served: dict[str, ReadUnit] | None, touched: set[str]) -> SourceEvent | None:
        changed = [] if served is None else [name for name in touched if self._found.get(name) != served.get(name)]
        if served is not None and not changed:
            return None
        if len(changed) == 1:
            match self._found.get(changed[0]):
                case Unit() as unit:
                    return UnitChanged(unit)
                case None:
                    return UnitRemoved(changed[0])
        units = tuple(found for found in self._found.values() if isinstance(found, Unit))
        return UnitsListed(units, {name: found for name, found in self._found.items() if isinstance(found, str)})

    # --- in a thread --------------------------------------------------------------------------------------------

    def _read(self, changes: Changes) -> None:
        if not (changes.everything or _ROOT in changes.names):
            for name in changes.names:
                self._read_subdirectory(name)
            return
        names = self._read_root()
        for name in names:
            if changes.everything or name in changes.names or name not in self._found:
                self._read_subdirectory(name)

    def _read_root(self) -> set[str]:
        """Reads the directory and the content that is replaced together with it. Returns its independent subdirectories."""
        with self._watch.interests(_ROOT):
            self._watch.path(_ROOT, self._path)
            self._listen(_ROOT, self._path)
            try:
                with open_root(self._path) as root:
                    units, names = consistently(root, self._read_contents, shown=self._path)
            except FileNotFoundError:
                gone = f"{self._path} has disappeared: mount or create it again; until then its last content is served"
                self._lose(gone if self._seen else "")
                return set()
            except (Unreadable, OSError) as error:
                self._watch.unread(_ROOT)
                self._lose(_why(self._path, error))
                return set()
            if any(isinstance(unit, str) for unit in units.values()):
                self._watch.unread(_ROOT)
        self._seen, self._down = True, ""
        for name in self._found.keys() - units.keys() - names:
            self._forget(name)
        for name, unit in units.items():
            if name != _ROOT:
                self._watch.drop(name)
            self._keep(name, unit)
        return names

    def _read_contents(self, folder: Folder, data: Folder) -> tuple[dict[str, ReadUnit], set[str]]:
        units = {_ROOT: self._read_unit(_ROOT, data)}
        names = subdirectories(folder, shown=self._path) - _NOBODYS
        if folder != data:
            for name in subdirectories(data, shown=self._path):
                try:
                    with open_within(data, name, shown=self._path / name) as subdirectory:
                        units[name] = self._read_unit(name, subdirectory)
                except Unreadable as error:
                    units[name] = str(error)
        return units, names - units.keys()

    def _read_subdirectory(self, name: str) -> None:
        path = self._path / name
        found: ReadUnit | None
        with self._watch.interests(name):
            self._watch.path(name, path, below=self._path)
            self._listen(name, path)
            try:
                with open_root(self._path) as root, open_within(root, name, shown=path) as folder:
                    found = consistently(folder, lambda _, data: self._read_unit(name, data), shown=path)
            except (FileNotFoundError, NotADirectoryError):
                found = None
            except (Unreadable, OSError) as error:
                found = _why(path, error)
            if isinstance(found, str):
                self._watch.unread(name)
        if found is None:
            self._forget(name)
        else:
            self._keep(name, found)

    def _listen(self, name: str, directory: Path) -> None:
        self._watch.listing(name, directory, self._matters(name))
        self._watch.listing(name, directory / "..data", self._matters(name))

    def _matters(self, unit: str) -> Callable[[str], bool]:
        return lambda entry: entry in _WATCHED or self._wants(unit, entry)

    def _wants(self, unit: str, key: str) -> bool:
        return self._rules.wants(key, kind=KIND, unit=unit)

    def _read_unit(self, name: str, folder: Folder) -> ReadUnit:
        path = self._path / name
        try:
            bundle = read_bundle(folder, shown=path, wants=lambda key: self._wants(name, key), files=FILES)
            unit = bundle_unit(
                bundle.texts, rules=self._rules, kind=KIND, source=self.name, unit=name, name=name,
                origin=bundle.origins.__getitem__,
            )  # fmt: skip
            unknown = only_files(unknown_names(bundle.unread, self._rules, kind=KIND, unit=name), folder)
            noted = {key: str(path / key) for key in unknown}
            noted |= {key: bundle.origins[key] for key in unknown_names(bundle.texts, self._rules, kind=KIND, unit=name)}
            unit = replace(unit, notes=notes(noted, self._rules.catalog, where=noted.__getitem__))
            return with_doubts(unit, bundle.doubts, shown=path / ".env", source=self.name)
        except (Unreadable, OSError) as error:
            return _why(path, error)
        except Malformed as malformed:
            return str(malformed)
        except Exception as error:  # noqa: BLE001 - a port: the other units serve
            return f"{path} cannot be read: {incident('source', str(path), error)}"

    def _keep(self, name: str, found: ReadUnit) -> None:
        self._found[name] = found
        self._touched.add(name)

    def _forget(self, name: str) -> None:
        self._watch.drop(name)
        self._found.pop(name, None)
        self._touched.add(name)

    def _lose(self, fault: str) -> None:
        for name in list(self._found):
            if name != _ROOT:
                self._forget(name)
        self._found.clear()
        self._touched.add(_ROOT)
        self._down = fault


def _why(path: Path, error: Unreadable | OSError) -> str:
    return str(unreadable(path, error) if isinstance(error, OSError) else error)


def _in_directory(*, key: str, dir: str = "") -> tuple[str, str]:  # noqa: A002 - named like the key
    return dir, key


MOUNTED: Final = SourceKind(
    name=KIND,
    means="A directory with one file per key, named like the variable. Each subdirectory is a Secret of its own.",
    keys={"path": ConfigKey(PATH, "The directory.", default="/run/secrets/equabot", example="/run/secrets/team")},
    place=lambda _: Path("/run/secrets/equabot"),
    location=ConfigKey(
        Section(
            _in_directory,
            {
                "dir": ConfigKey(TEXT, "The subdirectory.", default="the mounted directory itself", example="llm"),
                "key": ConfigKey(TEXT, "The name of the file.", default="required", example="ANTHROPIC_API_KEY"),
            },
            needs=("key",),
        ),
        "A file of a mounted directory.",
    ),
    build=lambda options, context: Mounted(MountedOptions(options["path"]), rules=context.rules, watch=Watch(context.clock)),
)
