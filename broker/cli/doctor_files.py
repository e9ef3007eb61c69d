"""The files and directories that are not stores: who may read and write them, and what is in them that should not be."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.cli.exits import Failure
from broker.cli.problems import FIX, Problem, problem
from broker.config.faults import Refused
from broker.config.recording import CLAUDE, migrated
from broker.domain.findings import Severity
from broker.files.dotenv import SIZE_MAX, bindings
from broker.files.reading import Unreadable, read_whole
from broker.storage.edited_file import Unwritable, edit_file

if TYPE_CHECKING:
    from broker.config.model import Config

_OPEN: Final = 0o077
_WRITABLE: Final = 0o022
_SIZE_MAX: Final = 1 << 20


def files(config: "Config", here: Path) -> Iterator[Problem]:
    """What is wrong with them. `here` is the working directory."""
    dotenvs = [Path(spec.options["path"]) for spec in config.sources if spec.kind == "dotenv"]
    yield from _writable(config.home)
    for dotenv in dotenvs:
        yield from _closed(dotenv, "holds credentials and is open to others than its owner")
    if config.file and config.env:
        yield from _closed(config.file, "has an env section, which may hold credentials, and is open to others than its owner")
    yield from _migration(config)
    yield from _working_directory(config, here, dotenvs)
    yield from _run_dir(config.run_dir)


def _writable(directory: Path) -> Iterator[Problem]:
    mode = _mode(directory)
    if mode is not None and mode & _WRITABLE:
        message = "may be written to by others than its owner, who could put other files in the place of those in it"
        yield problem(Severity.ERROR, directory, message, f"chmod go-w {directory}", fix=_chmod(directory, mode & ~_WRITABLE))


def _closed(file: Path, message: str) -> Iterator[Problem]:
    mode = _mode(file)
    if mode is not None and mode & _OPEN:
        yield problem(Severity.WARNING, file, message, f"chmod 600 {file}", fix=_chmod(file, 0o600))


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _chmod(path: Path, mode: int) -> Callable[[], str]:
    def close() -> str:
        path.chmod(mode)
        return f"{path} is {mode:o} now"

    return close


def _migration(config: "Config") -> Iterator[Problem]:
    """What the seed's system once wrote otherwise, which is read as it is meant now."""
    if config.file is None:
        return
    file = config.file

    def migrate() -> str:
        try:
            edit_file(file, lambda content: migrated(content.decode("utf-8-sig")).encode(), backup=".before-migration")
        except Refused as refused:
            message = f"{file} {refused}"
        except Unwritable as unwritable:
            message = str(unwritable)
        else:
            return f"{file} says mode: oauth for {CLAUDE} now; {file.name}.before-migration is as it was"
        raise Failure(message)

    try:
        text = read_whole(file, limit=_SIZE_MAX).decode("utf-8-sig")
        old = migrated(text) != text
    except (Refused, FileNotFoundError, Unreadable, ValueError):
        old = True
    if old:
        message = f"has mode: token for {CLAUDE}, which is read as oauth: a login there may be either"
        yield problem(Severity.INFO, file, message, FIX, fix=migrate)


def _working_directory(config: "Config", here: Path, dotenvs: list[Path]) -> Iterator[Problem]:
    """A repository must not choose an agent's key; whoever put one there wonders why it is not used."""
    found = here / ".env"
    try:
        if any(found.samefile(dotenv) for dotenv in dotenvs if dotenv.exists()):
            return
        lines = bindings(read_whole(found, limit=SIZE_MAX), shown=found)
    except (OSError, Unreadable):
        return
    names = [line.key for line in lines if line.key is not None and config.rules.wants(line.key, kind="dotenv")]
    if names:
        message = f"is not read, because a working directory may not choose credentials; in it: {', '.join(names[:5])}"
        where = dotenvs[0] if dotenvs else config.home / ".env"
        yield problem(Severity.WARNING, found, message, f"move it to {where}, if it is yours")


def _run_dir(run_dir: Path) -> Iterator[Problem]:
    mode = _mode(run_dir)
    if mode is None:
        return
    if mode & 0o002:
        message = "may be written to by everybody, who could listen there in the broker's place"
        yield problem(Severity.ERROR, run_dir, message, f"chmod o-w {run_dir}", fix=_chmod(run_dir, mode & ~0o002))
    if not os.access(run_dir, os.W_OK | os.X_OK):
        message = f"cannot be written to by this user ({os.geteuid()}), so that no broker of theirs can start there"
        yield problem(Severity.INFO, run_dir, message, "run as the broker's user, or choose another with --run-dir")
