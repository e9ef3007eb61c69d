"""A directory as the kubelet keeps it for a Secret: contents in a dated directory, and `..data` leading there."""

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

_NUMBER = itertools.count(1)


class Volume:
    """Follows the steps of the kubelet's atomic writer, in its order."""

    def __init__(self, path: Path, contents: Mapping[str, str]) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.swap(contents)

    def swap(self, contents: Mapping[str, str], *, dies: bool = False) -> None:
        """Exchanges everything. Names may have one directory before them. `dies`: once it has, and before it tidies up."""
        data = self.path / "..data"
        before = data.resolve() if data.is_symlink() else None
        dated = self.path / f"..2026_11_22_10_00_00.{next(_NUMBER)}"
        for name, text in contents.items():
            (dated / name).parent.mkdir(parents=True, exist_ok=True)
            (dated / name).write_text(text)
        dated.mkdir(exist_ok=True)
        pending = self.path / "..data_tmp"
        pending.symlink_to(dated.name)
        pending.rename(data)
        if dies:
            return
        visible = {name.partition("/")[0] for name in contents}
        for name in visible:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for entry in self.path.iterdir():
            if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in visible:
                entry.unlink()
        if before is not None:
            shutil.rmtree(before)
