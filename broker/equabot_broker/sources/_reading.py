"""Functions that sources share: the time of a file's last change, and the content of a directory of secrets."""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

from equabot_broker.discovery.hygiene import SIZE_MAX
from equabot_broker.domain.masking import is_misplaced_key
from equabot_broker.files.confined import Folder, open_within, read_within
from equabot_broker.files.dotenv import SIZE_MAX as DOTENV_MAX
from equabot_broker.files.reading import StandingFault, unreadable
from equabot_broker.sources._variables import parse_dotenv

T = TypeVar("T")

_DATA: Final = "..data"
_SWAPS_MAX: Final = 20
_KEYS_MAX: Final = 10_000
_NAMES_MAX: Final = 100_000
_UNITS_MAX: Final = 20_000


def changed_at(path: Path) -> float:
    """When the file was last changed, in seconds since 1970.

    Raises Unreadable, and FileNotFoundError, also for a file in a directory that the broker may not enter.
    """
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        raise
    except PermissionError:
        raise FileNotFoundError from None
    except OSError as error:
        raise unreadable(path, error) from None


@dataclass(frozen=True, slots=True)
class Bundle:
    """The texts in a directory by key, the origin of each, and the doubts about its `.env`. `unread` are the names of other
    entries."""

    texts: dict[str, str | bytes]
    origins: dict[str, str]
    doubts: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()


def read_bundle(
    folder: Folder, *, shown: Path, wants: Callable[[str], bool], files: Mapping[str, int] = MappingProxyType({})
) -> Bundle:
    """The content of an open directory: a file per wanted key, the variables of its `.env`, and `files`.

    A file of a key takes precedence over a variable. `files` has the limit in bytes of each file. No other file is opened.
    Raises Unreadable if any of them cannot be read, so that no content is partial.
    """
    texts: dict[str, str | bytes] = {}
    origins: dict[str, str] = {}
    doubts: tuple[str, ...] = ()
    names = _names(folder, shown=shown)
    if ".env" in names and (raw := _read_entry(".env", folder, shown=shown, limit=DOTENV_MAX)) is not None:
        found = parse_dotenv(raw, shown=shown / ".env", wants=wants)
        texts, doubts = dict(found.values), found.doubts
        origins |= {key: f"{shown / '.env'} {key}" for key in texts}
    wanted = [name for name in names if name in files or (not name.startswith(".") and wants(name))]
    if len(wanted) > _KEYS_MAX:
        raise StandingFault(shown, f"holds more than {_KEYS_MAX:,} keys", "move some of them to a directory of their own")
    for key in sorted(wanted):
        if is_misplaced_key(key):  # discovery reports it and does not need the content
            texts[key], origins[key] = "", str(shown / key)
            continue
        if (value := _read_entry(key, folder, shown=shown, limit=files.get(key, SIZE_MAX))) is not None:
            texts[key] = value
            origins[key] = str(shown / key)
    return Bundle(texts, origins, doubts, frozenset(names.difference(wanted)))


def only_files(names: Iterable[str], folder: Folder) -> list[str]:
    """The entries that are files or links to files. No file is opened."""
    return [name for name in names if _is_file(name, folder)]


def _is_file(name: str, folder: Folder) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder.descriptor).st_mode)
    except OSError:
        return False


def _names(folder: Folder, *, shown: Path) -> set[str]:
    with os.scandir(folder.descriptor) as entries:
        names = {entry.name for entry in islice(entries, _NAMES_MAX + 1)}
    if len(names) > _NAMES_MAX:
        raise StandingFault(shown, f"has more than {_NAMES_MAX:,} entries", "keep nothing but secrets in it")
    return names


def _read_entry(name: str, folder: Folder, *, shown: Path, limit: int) -> bytes | None:
    """The content. None for a directory, and for a file that was removed after the names were listed."""
    try:
        return read_within(folder, name, shown=shown / name, limit=limit)
    except FileNotFoundError:
        linked = is_link(name, folder)
    except OSError as error:
        raise unreadable(shown / name, error) from None
    if linked:
        raise StandingFault(shown / name, "is a link to a file that does not exist", "remove it or correct it")
    return None


def is_link(name: str, folder: Folder) -> bool:
    """Whether an entry of an open directory is a symbolic link, also one to nothing."""
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder.descriptor).st_mode)
    except FileNotFoundError:
        return False


def subdirectories(folder: Folder, *, shown: Path) -> set[str]:
    """The directories in an open directory, and links to directories. Hidden and unprintable names are left out.

    Raises StandingFault if there are too many.
    """
    found: set[str] = set()
    with os.scandir(folder.descriptor) as entries:
        for entry in entries:
            try:
                if not entry.name.startswith(".") and entry.name.isprintable() and entry.is_dir():
                    found.add(entry.name)
            except OSError:  # a link that leads to itself
                continue
            if len(found) > _UNITS_MAX:
                raise StandingFault(shown, f"has more than {_UNITS_MAX:,} directories", "keep nothing but secrets in it")
    return found


def consistently(folder: Folder, read: Callable[[Folder, Folder], T], *, shown: Path) -> T:
    """The result of `read`, which gets an open directory and the directory with its current content.

    The two differ in a volume of the kubelet, where `..data` links to the content and is replaced as a whole. A reading during
    which it was replaced is discarded. Raises Unreadable.
    """
    for _ in range(_SWAPS_MAX):
        try:
            with open_within(folder, _DATA, shown=shown / _DATA) as data:
                found = read(folder, data)
                if os.path.samestat(os.fstat(data.descriptor), os.stat(_DATA, dir_fd=folder.descriptor)):
                    return found
        except FileNotFoundError:
            if not is_link(_DATA, folder):
                return read(folder, folder)
        except OSError as error:
            raise unreadable(shown / _DATA, error) from None
    raise StandingFault(
        shown / _DATA, "leads to no directory, or changes during every reading", "check which program writes there"
    )
