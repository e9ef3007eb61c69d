"""One watched directory: which of its entries are of interest, and under which names of the reader."""

import os
import stat
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from inotify_simple import flags as on


@dataclass(slots=True)
class WatchedDirectory:
    """The interests in a watched directory. `itself` are the names that want changes of the directory, `entries` the names by
    entry. `listings` are functions by name, which accept other entries."""

    path: Path
    itself: set[str] = field(default_factory=set)
    entries: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    listings: dict[str, Callable[[str], bool]] = field(default_factory=dict)

    def everyone(self) -> set[str]:
        return self.itself.union(self.listings, *self.entries.values())

    def whom(self, entry: str, mask: int) -> set[str]:
        found = set(self.entries.get(entry, ()))
        for name, wants in self.listings.items():
            if wants(entry) or (not entry.startswith(".") and self._may_be_directory(entry, mask)):
                found.add(name)
        return found

    def _may_be_directory(self, entry: str, mask: int) -> bool:
        return bool(mask & on.ISDIR) or (bool(mask & (on.CREATE | on.MOVED_TO)) and os.path.islink(self.path / entry))  # noqa: PTH114

    def forget(self, name: str, entry: str) -> None:
        self.itself.discard(name)
        self.listings.pop(name, None)
        if (interested := self.entries.get(entry)) is not None:
            interested.discard(name)
            if not interested:
                del self.entries[entry]


def being_written(path: Path) -> bool:
    """Whether a new file may still be written. A file that was hard-linked into place is complete."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
