"""Where the configuration is, and what the environment has to say. With `sources/env`, the server's only reader of either.

A flag goes before a variable, a variable before the file, the file before the default; but `EQUABOT_LISTEN_…` only moves
the default, so that an image may set it and a file mounted into its containers still has the last word.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from equabot_broker.config.assemble import Surroundings, assemble
from equabot_broker.config.document import ConfigDocument
from equabot_broker.config.keys import read
from equabot_broker.config.model import Config
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.providers import PROVIDERS
from equabot_broker.schema import values
from equabot_broker.schema.faults import ConfigurationFaults, ValueRefused
from equabot_broker.schema.reading import FaultReport
from equabot_broker.sources.declaration import SourceKind
from equabot_broker.sources.registry import KINDS

_SIZE_MAX: Final = 1024 * 1024
_SYSTEM_RUN_DIR: Final = Path("/run/equabot")


def load(
    *,
    config_path: str | None = None,
    run_dir: str | None = None,
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    default_run_dir: Path | None = None,
    kinds: Mapping[str, SourceKind] = KINDS,
) -> Config:
    """The configuration: from `--config`, `EQUABOT_CONFIG` or `$EQUABOT_HOME/equabot.yaml`, which alone may be missing.

    `environ` is the environment, by default the process's own; `home` the user's home directory, by default what `~` is;
    `default_run_dir` where the sockets are where nothing says it, by default the first place that can be used; `kinds` the
    kinds of sources, by default all that the broker has.
    Nothing is created. Raises ConfigurationFaults, with all that is wrong.
    """
    environ = os.environ if environ is None else environ
    report = FaultReport()
    outside = _Outside(environ, home, report)
    own_home = outside.path("EQUABOT_HOME") or outside.user_home / ".equabot"
    named = outside.path("--config", config_path) or outside.path("EQUABOT_CONFIG")
    report.file = str(named or own_home / "equabot.yaml")
    content = _content(Path(report.file), needed=named is not None, report=report)
    document = None if content is None else _document(content, report, kinds)
    around = Surroundings(
        file=None if document is None else Path(report.file),
        user_home=outside.user_home,
        home=own_home,
        run_dir=outside.path("--run-dir", run_dir) or outside.path("EQUABOT_RUN_DIR"),
        default_run_dir=default_run_dir or _default_run_dir(environ, own_home),
        listen=outside.addresses(),
        directories=outside.directories(kinds),
        workloads=outside.workloads(),
        kinds=kinds,
    )
    config = assemble(document or ConfigDocument(), around, report)
    if faults := report.faults():
        raise ConfigurationFaults(faults, file="" if content is None else report.file)
    return config if content is None else replace(config, revision=_revision(content))


def revision_of(file: Path) -> str:
    """What the file holds now, as `Config.revision` has it; empty where it cannot be read."""
    try:
        return _revision(read_whole(file, limit=_SIZE_MAX))
    except (FileNotFoundError, Unreadable):
        return ""


def _revision(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Outside:
    """Flags and variables. What is wrong with one goes to the report, and it counts as not given."""

    def __init__(self, environ: Mapping[str, str], home: Path | None, report: FaultReport) -> None:
        self._environ = environ
        self._report = report
        # `expanduser` gives back `~` for a user whom the system does not know, as in a container; `/` is what runtimes say.
        known = str(home or environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111
        self.user_home = Path(known if known.startswith("/") else "/")

    def path(self, name: str, written: str | None = None) -> Path | None:
        """The flag's value, or else the variable's; None when it is not set or empty."""
        written = written or self._environ.get(name)
        if not written:
            return None
        try:
            plain = values.path(written)
            return (self.user_home / plain[2:] if plain.startswith("~") else Path(plain)).absolute()
        except ValueRefused as refused:
            message = str(refused)
        except FileNotFoundError:
            message = "is relative to a working directory that is gone; write the whole path"
        self._report.refuse_outside(name, message)
        return None

    def addresses(self) -> Mapping[str, values.Address]:
        """What `EQUABOT_LISTEN_…` say."""
        found = {}
        for name in ("health", "metrics", "gateway"):
            variable = f"EQUABOT_LISTEN_{name.upper()}"
            if written := self._environ.get(variable):
                try:
                    found[name] = values.address(written)
                except ValueRefused as refused:
                    self._report.refuse_outside(variable, str(refused))
        return MappingProxyType(found)

    def directories(self, kinds: Mapping[str, SourceKind]) -> Mapping[str, Path]:
        """The directories that variables of other tools name, by variable."""
        named = {variable: self.path(variable) for kind in kinds.values() for variable in kind.variables}
        return MappingProxyType({variable: path for variable, path in named.items() if path is not None})

    def workloads(self) -> Mapping[str, Mapping[str, str]]:
        """What variables say of workloads' identities, by provider and key, where they say all that is needed."""
        found = {}
        for provider in PROVIDERS.values():
            if (exchange := provider.exchange) is None:
                continue
            told = {key: name for key, name in exchange.variables.items() if self._environ.get(name)}
            if told and {values.TOKEN_FILE, *exchange.needs} <= told.keys():
                found[provider.id] = {key: self._told(key, name) for key, name in told.items()}
        return MappingProxyType(found)

    def _told(self, key: str, name: str) -> str:
        if key == values.TOKEN_FILE:
            return str(self.path(name) or "")
        try:
            return values.identifier(self._environ[name])
        except ValueRefused as refused:
            self._report.refuse_outside(name, str(refused))
        return ""


def _content(file: Path, *, needed: bool, report: FaultReport) -> bytes | None:
    """What the file holds; None when there is none, or none that can be read, which the report then says."""
    try:
        return read_whole(file, limit=_SIZE_MAX)
    except FileNotFoundError:
        message = "does not exist; create it, or do not name it" if needed else ""
    except Unreadable as unreadable:
        message = f"{unreadable.why}; {unreadable.remedy}"
    if message:
        report.refuse("", message)
    return None


def _document(content: bytes, report: FaultReport, kinds: Mapping[str, SourceKind]) -> ConfigDocument | None:
    """What the file says; None where it cannot be used, which the report then says."""
    try:
        return read(content.decode("utf-8-sig"), report, kinds=kinds)
    except UnicodeDecodeError as undecodable:
        line = content.count(b"\n", 0, undecodable.start) + 1
        message = f"is not UTF-8 text (line {line}); save it as UTF-8"
    except ValueRefused as refused:
        message = str(refused)
    report.refuse("", message)
    return None


def _default_run_dir(environ: Mapping[str, str], own_home: Path, *, system: Path = _SYSTEM_RUN_DIR) -> Path:
    """The first place that is there or can be made."""
    runtime = environ.get("XDG_RUNTIME_DIR") or ""
    places = [system, *([Path(runtime) / "equabot"] if runtime.startswith("/") else [])]
    return next((place for place in places if _usable(place)), own_home / "run")


def _usable(place: Path) -> bool:
    return os.access(place if os.path.exists(place) else place.parent, os.W_OK | os.X_OK)  # noqa: PTH110  (never raises)
