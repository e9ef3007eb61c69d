"""Moves credentials from files of older versions of OpenClaw into the profile stores that replace them.

`agents/<agent>/agent/auth.json` (provider → credential) and `credentials/oauth.json` (provider → OAuth tokens) become profiles
`<provider>:default`. Each file is migrated once: when its credentials are in the store, it is renamed and kept as a backup.
A copy of the store from before the migration is kept as well. A profile that the store already has is never replaced.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from equabot_broker.domain.masking import masked
from equabot_broker.domain.policies import MAIN
from equabot_broker.domain.provider import Catalog
from equabot_broker.formats.auth_document import AuthDocument, with_entry
from equabot_broker.parsing.untrusted_json import LARGEST, Malformed, decode
from equabot_broker.ports import StoreFault
from equabot_broker.storage._store_file import read_trusted
from equabot_broker.storage.agent_stores import AgentStores

_DONE: Final = ".migrated"
_BEFORE: Final = ".before-migration"
_TYPES: Final = ("api_key", "token", "oauth")
_NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class Migration:
    """The result for one older file: profiles that were moved, and profiles that the store already had.

    If `fault` is not empty, the migration is still pending, and `fault` says why.
    """

    file: Path
    store: Path
    moved: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    fault: str = ""

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        gave, had = (", ".join(map(masked, names)) for names in (self.moved, self.known))
        moved = f"moved {gave} from {self.file} to {self.store}" if gave else f"{self.file} had nothing new for {self.store}"
        known = f"; the store already has {had}" if had else ""
        return f"{moved}{known}; the file is kept as {self.file.name}{_DONE}"


def migrate(stores: AgentStores, home: Path, *, catalog: Catalog) -> list[Migration]:
    """Migrates all older files, and returns one result for each. Blocks. A file whose migration fails stays unchanged."""
    done = []
    for file, agent, typed in _older_files(home):
        try:
            done.append(_moved(file, stores, agent, typed=typed, catalog=catalog))
        except StoreFault as fault:
            done.append(Migration(file, _path(stores, agent), fault=str(fault)))
    return done


def pending(home: Path) -> list[Path]:
    """The older files that are not migrated yet."""
    return [file for file, _, _ in _older_files(home)]


def backups(home: Path) -> list[Path]:
    """Backups of earlier migrations. They hold credentials; the operator may remove them."""
    folders = [home / "credentials", *sorted(home.glob("agents/*/agent"))]
    found = (path for folder in folders for end in (_DONE, _BEFORE) for path in sorted(folder.glob(f"*.json{end}*")))
    return list(found)


def _older_files(home: Path) -> Iterator[tuple[Path, str, bool]]:
    """Each older file, the agent for whose store it is, and whether its credentials have a type."""
    for file in sorted(home.glob("agents/*/agent/auth.json")):
        yield file, file.parent.parent.name, True
    file = home / "credentials" / "oauth.json"
    if os.path.lexists(file):
        yield file, MAIN, False


def _path(stores: AgentStores, agent: str) -> Path:
    with suppress(StoreFault):
        return stores.of(agent).path
    return Path()


def _moved(file: Path, stores: AgentStores, agent: str, *, typed: bool, catalog: Catalog) -> Migration:
    store = stores.of(agent)
    entries = _entries(file, typed=typed, catalog=catalog)
    with store.locked() as locked:
        before = locked.document.entries
        moved = {name: entry for name, entry in entries.items() if name not in before}
        try:
            if moved and os.path.lexists(store.path):
                _keep(store.path)
            if moved:
                locked.edit(partial(_with_entries, entries=moved))
            _set_aside(file)
        except OSError as error:
            raise StoreFault(
                f"{file} cannot be migrated to {store.path} ({error.strerror}): let user {os.geteuid()} write to both files"
            ) from None
    return Migration(file, store.path, tuple(moved), tuple(name for name in entries if name in before))


def _with_entries(document: AuthDocument, entries: Mapping[str, Mapping[str, object]]) -> AuthDocument:
    for name, entry in entries.items():
        document = with_entry(document, name, entry)
    return document


def _entries(file: Path, *, typed: bool, catalog: Catalog) -> dict[str, dict[str, object]]:
    remedy = "correct it, or remove it if nothing in it is needed"
    try:
        text = read_trusted(file, limit=LARGEST, shown=file)
        contents = decode(text or b"")
    except Malformed as malformed:
        fault = f"{file} cannot be migrated, because {malformed}: {remedy}"
    else:
        if not isinstance(contents, dict) or "profiles" in contents:
            raise StoreFault(f"{file} cannot be migrated, because it does not map providers to credentials: {remedy}")
        return dict(_read(contents, typed=typed, catalog=catalog))
    raise StoreFault(fault)


def _read(contents: Mapping[str, object], *, typed: bool, catalog: Catalog) -> Iterator[tuple[str, dict[str, object]]]:
    for written, credential in contents.items():
        if not isinstance(credential, dict) or (typed and credential.get("type") not in _TYPES):
            continue
        named = credential.get("provider")
        provider = named if isinstance(named, str) and named else written
        kind = credential["type"] if typed else "oauth"
        yield f"{catalog.normalise(written) or written}:{_NAME}", {**credential, "type": kind, "provider": provider}


def _keep(path: Path) -> None:
    """Copies the store. An existing copy stays: it is from before the first migration."""
    copy = path.with_name(path.name + _BEFORE)
    content = read_trusted(path, limit=2 * LARGEST, shown=path) or b""
    with suppress(FileExistsError):
        file = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(file, "wb") as to:
            to.write(content)
            to.flush()
            os.fsync(to.fileno())


def _set_aside(file: Path) -> None:
    names = (f"{file.name}{_DONE}{f'.{n}' if n else ''}" for n in count())
    aside = next(path for name in names if not os.path.lexists(path := file.with_name(name)))
    if not file.is_symlink():
        file.chmod(0o600)
    file.rename(aside)
