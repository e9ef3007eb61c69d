"""Problems with the contents of files: settings of an older format, and credentials in a place that the broker does not
read."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from equabot_broker.cli.problems import FIX, Problem, problem
from equabot_broker.config.recording import CLAUDE, migrated
from equabot_broker.diagnosis.findings import Severity
from equabot_broker.domain.masking import masked
from equabot_broker.files.dotenv import SIZE_MAX, statements
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.schema.faults import ValueRefused
from equabot_broker.storage.edited_file import Unwritable, edit_file
from equabot_cli.exits import Failure

if TYPE_CHECKING:
    from equabot_broker.config.model import Config

_SIZE_MAX: Final = 1 << 20


def files(config: "Config", here: Path) -> Iterator[Problem]:
    """The problems. `here` is the working directory."""
    dotenvs = [Path(spec.options["path"]) for spec in config.sources if spec.kind == "dotenv"]
    yield from _migration(config)
    yield from _working_directory(config, here, dotenvs)


def _migration(config: "Config") -> Iterator[Problem]:
    """A setting that OpenClaw once wrote in another form. The broker reads it with its present meaning."""
    if config.file is None:
        return
    file = config.file

    def migrate() -> str:
        try:
            edit_file(file, lambda content: migrated(content.decode("utf-8-sig")).encode(), backup=".before-migration")
        except ValueRefused as refused:
            message = f"{file} {refused}"
        except Unwritable as unwritable:
            message = str(unwritable)
        else:
            return f"{file} now has mode: oauth for {CLAUDE}; {file.name}.before-migration keeps the old content"
        raise Failure(message)

    try:
        text = read_whole(file, limit=_SIZE_MAX).decode("utf-8-sig")
        old = migrated(text) != text
    except (ValueRefused, FileNotFoundError, Unreadable, ValueError):
        old = True
    if old:
        message = f"has mode: token for {CLAUDE}, which the broker reads as oauth, because OpenClaw wrote it for both kinds"
        yield problem(Severity.INFO, file, message, FIX, fix=migrate)


def _working_directory(config: "Config", here: Path, dotenvs: list[Path]) -> Iterator[Problem]:
    """Reports credentials in a .env of the working directory: they are not read, because a repository must not choose an
    agent's key."""
    found = here / ".env"
    try:
        if any(found.samefile(dotenv) for dotenv in dotenvs if dotenv.exists()):
            return
        lines = statements(read_whole(found, limit=SIZE_MAX), shown=found)
    except (OSError, Unreadable):
        return
    names = [line.name for line in lines if line.name and config.rules.wants(line.name, kind="dotenv")]
    if names:
        shown = ", ".join(map(masked, names[:5]))
        message = f"is not read, because a working directory may not choose credentials; it contains: {shown}"
        where = dotenvs[0] if dotenvs else config.home / ".env"
        yield problem(Severity.WARNING, found, message, f"move it to {where}, if it is yours")
