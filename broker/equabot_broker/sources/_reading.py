"""What sources share of reading: when a file changed, and what a directory of secrets holds."""

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
    """When the file was changed last, in seconds since the epoch. Raises FileNotFoundError, also for a file in a directory that
    is closed to the broker, and Unreadable."""
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
    """The texts in a directory by key, where each is, and what is doubtful about the lines of its `.env`. `unread` are the
    names of other entries."""

    texts: dict[str, str | bytes]
    origins: dict[str, str]
    doubts: tuple[str, ...] = ()
    unread: frozenset[str] = frozenset()


def read_bundle(
    folder: Folder, *, shown: Path, wants: Callable[[str], bool], files: Mapping[str, int] = MappingProxyType({})
) -> Bundle:
    """What an open directory holds: a file for each wanted key, beneath them the variables of its `.env`, and these `files`, of
    which it says how many bytes each may have.

    No other file is opened. Raises Unreadable when one of these cannot be read: nothing is half read.
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
        if is_misplaced_key(key):  # the discovery says so; nothing of it is needed
            texts[key], origins[key] = "", str(shown / key)
            continue
        if (value := _read_entry(key, folder, shown=shown, limit=files.get(key, SIZE_MAX))) is not None:
            texts[key] = value
            origins[key] = str(shown / key)
    return Bundle(texts, origins, doubts, frozenset(names.difference(wanted)))


def only_files(names: Iterable[str], folder: Folder) -> list[str]:
    """Those entries that are files, or links to one. None is opened."""
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
    """None for a directory, and for a file that has gone since the names were listed."""
    try:
        return read_within(folder, name, shown=shown / name, limit=limit)
    except FileNotFoundError:
        linked = is_link(name, folder)
    except OSError as error:
        raise unreadable(shown / name, error) from None
    if linked:
        raise StandingFault(shown / name, "is a link to nothing", "remove it or correct it")
    return None


def is_link(name: str, folder: Folder) -> bool:
    """Whether an entry of an open directory is a symbolic link, whatever it leads to."""
    try:
        return stat.S_ISLNK(os.lstat(name, dir_fd=folder.descriptor).st_mode)
    except FileNotFoundError:
        return False


def subdirectories(folder: Folder, *, shown: Path) -> set[str]:
    """The directories in an open directory, and links to directories; none that is hidden, or whose name cannot be shown.

    Raises StandingFault where there are too many.
    """
    found: set[str] = set()
    with os.scandir(folder.descriptor) as entries:
        for entry in entries:
            try:
                if not entry.name.startswith(".") and entry.name.isprintable() and entry.is_dir():
                    found.add(entry.name)
            except OSError:  # a link in a circle
                continue
            if len(found) > _UNITS_MAX:
                raise StandingFault(shown, f"has more than {_UNITS_MAX:,} directories", "keep nothing but secrets in it")
    return found


def consistently(folder: Folder, read: Callable[[Folder, Folder], T], *, shown: Path) -> T:
    """What `read` finds in an open directory, given that and the directory with its present contents.

    They differ where the kubelet keeps a volume: there `..data` leads to the contents and is exchanged as a whole. A reading
    during which that happened is thrown away. Raises Unreadable.
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
    raise StandingFault(shown / _DATA, "leads nowhere, or elsewhere whenever it is read", "check what writes there")
