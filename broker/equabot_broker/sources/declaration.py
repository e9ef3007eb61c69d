"""The declaration of a kind of source: its keys in the configuration, its files, and the function that builds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.ports import Clock, Source
from equabot_broker.schema.key_readers import PATH
from equabot_broker.schema.reading import ConfigKey, Section

SourceOptions = Mapping[str, Any]
"""The options of one source, by key. A key of the type `path` has an absolute `Path`."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class Store(Protocol):
    """One agent's store."""

    @property
    def path(self) -> Path:
        """The path of its file, which may not exist."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that its content depends on."""

    def inspect(self) -> tuple[AuthDocument, tuple[str, ...]]:
        """Its content, and the doubts about its file. Raises StoreFault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """The parts that sources are built with.

    `stores` are the agents' profile stores. `variables` are used if the broker's environment does not have them.
    `shell_within` is how long (seconds) a login shell may take to report more. None: no login shell is run.
    """

    rules: DiscoveryRules
    clock: Clock
    stores: Mapping[str, Store] = field(default_factory=lambda: _NOTHING)
    variables: Mapping[str, SecretValue] = field(default_factory=lambda: _NOTHING)
    shell_within: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultPlaces:
    """The directories for default paths: the broker's, the user's home, and those in variables, by variable."""

    home: Path
    user_home: Path
    directories: Mapping[str, Path] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """One kind of source. `means` and `keys` describe its section under `sources`. `build` makes a source and reads nothing.

    `place` returns the default of its key `path`, and `variables` are those that name directories for it. `location` reads
    `profiles.<id>.from` for this kind: the name of a value, or the unit and the name. `login` is the profile of another tool's
    login. Such a kind has a key `refresh`, which is a rule about that profile. `made_of` is the part of the context that its
    reports depend on. `usual`: it is in a configuration that names no sources. `last`: its profiles are chosen last. Keys in
    `needs` are required. `check` raises ValueRefused for keys that contradict each other. `shown` distinguishes the sources of
    one kind in texts.
    """

    name: str
    means: str
    build: Callable[[SourceOptions, SourceContext], Source]
    keys: Mapping[str, ConfigKey[Any]] = field(default_factory=lambda: _NOTHING)
    place: Callable[[DefaultPlaces], Path] | None = None
    variables: tuple[str, ...] = ()
    location: ConfigKey[Any] | None = None
    login: str = ""
    made_of: Callable[[SourceContext], object] = lambda _: None
    usual: bool = True
    last: bool = False
    needs: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], None] = lambda _: None
    shown: Callable[[SourceOptions], str] = lambda options: " ".join(map(str, options.values()))

    @property
    def section(self) -> ConfigKey[dict[str, Any]]:
        """The reader of its section."""
        return ConfigKey(Section(self._checked, self.keys, needs=self.needs), self.means)

    def _checked(self, **given: Any) -> dict[str, Any]:
        self.check(given)
        return given

    def options(self, given: Mapping[str, Any], places: DefaultPlaces, full: Callable[[str], Path]) -> SourceOptions:
        """The options from its section. `full` makes a path from the file absolute."""
        paths = {key for key, reader in self.keys.items() if reader.of is PATH}
        default = {} if self.place is None else {"path": self.place(places)}
        written = {key: full(value) if key in paths else value for key, value in given.items()}
        if self.login:
            written.pop("refresh", None)
        return MappingProxyType(default | written)
