"""Finds and reads the configuration file and the variables that change it. No other module of the server but `sources/env`
reads the environment.

The precedence is: flag, variable, file, default. `EQUABOT_LISTEN_…` is the exception and replaces only the default. So an
image can set these variables, and a configuration file in its container takes precedence.
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
    """The configuration from `--config`, `EQUABOT_CONFIG` or `$EQUABOT_HOME/equabot.yaml`. Only the last may be missing.

    `environ` is the environment, by default that of the process. `home` is the user's home directory, by default `~`.
    `default_run_dir` is the directory of the sockets if nothing sets it, by default the first one that can be used. `kinds`
    are the kinds of sources, by default all kinds of the broker.
    The function creates nothing. Raises ConfigurationFaults with every fault.
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
    """The revision of the file's present content, as in `Config.revision`. Empty if the file cannot be read."""
    try:
        return _revision(read_whole(file, limit=_SIZE_MAX))
    except (FileNotFoundError, Unreadable):
        return ""


def _revision(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Outside:
    """Flags and variables. One with a fault is added to the report and treated as not set."""

    def __init__(self, environ: Mapping[str, str], home: Path | None, report: FaultReport) -> None:
        self._environ = environ
        self._report = report
        # `expanduser` returns `~` for a user that the system does not know, as in a container. Container runtimes use `/`.
        known = str(home or environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111
        self.user_home = Path(known if known.startswith("/") else "/")

    def path(self, name: str, written: str | None = None) -> Path | None:
        """The value of the flag, or else of the variable. None if it is not set or empty."""
        written = written or self._environ.get(name)
        if not written:
            return None
        try:
            plain = values.path(written)
            return (self.user_home / plain[2:] if plain.startswith("~") else Path(plain)).absolute()
        except ValueRefused as refused:
            message = str(refused)
        except FileNotFoundError:
            message = "is relative to a working directory that was deleted; write the whole path"
        self._report.refuse_outside(name, message)
        return None

    def addresses(self) -> Mapping[str, values.Address]:
        """The addresses in `EQUABOT_LISTEN_…`, by name."""
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
        """The directories in variables of other tools, by variable."""
        named = {variable: self.path(variable) for kind in kinds.values() for variable in kind.variables}
        return MappingProxyType({variable: path for variable, path in named.items() if path is not None})

    def workloads(self) -> Mapping[str, Mapping[str, str]]:
        """The workload identities in variables, by provider and key. An incomplete one is left out."""
        found = {}
        for provider in PROVIDERS.values():
            if (exchange := provider.exchange) is None:
                continue
            names = {key: name for key, name in exchange.variables.items() if self._environ.get(name)}
            if names and {values.TOKEN_FILE, *exchange.needs} <= names.keys():
                found[provider.id] = {key: self._identity_field(key, name) for key, name in names.items()}
        return MappingProxyType(found)

    def _identity_field(self, key: str, name: str) -> str:
        if key == values.TOKEN_FILE:
            return str(self.path(name) or "")
        try:
            return values.identifier(self._environ[name])
        except ValueRefused as refused:
            self._report.refuse_outside(name, str(refused))
        return ""


def _content(file: Path, *, needed: bool, report: FaultReport) -> bytes | None:
    """The content of the file. None if it does not exist or cannot be read; the report then has the fault."""
    try:
        return read_whole(file, limit=_SIZE_MAX)
    except FileNotFoundError:
        message = "does not exist; create it, or correct the path" if needed else ""
    except Unreadable as unreadable:
        message = f"{unreadable.why}; {unreadable.remedy}"
    if message:
        report.refuse("", message)
    return None


def _document(content: bytes, report: FaultReport, kinds: Mapping[str, SourceKind]) -> ConfigDocument | None:
    """The document in the file. None if the content is not a document; the report then has the fault."""
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
    """The first directory that exists or can be created, with write access."""
    runtime = environ.get("XDG_RUNTIME_DIR") or ""
    places = [system, *([Path(runtime) / "equabot"] if runtime.startswith("/") else [])]
    return next((place for place in places if _usable(place)), own_home / "run")


def _usable(place: Path) -> bool:
    return os.access(place if os.path.exists(place) else place.parent, os.W_OK | os.X_OK)  # noqa: PTH110  (never raises)
