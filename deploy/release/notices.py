"""Prints the licences of everything that is installed in this interpreter's environment but ours: names, versions and texts.

Run by the interpreter of the environment that is described. Exit 1 with a line on standard error for each distribution whose
licence cannot be named, so that a release never ships what it may not.
"""

import sys
from importlib.metadata import Distribution, distributions
from pathlib import PurePosixPath
from typing import Final

_OURS: Final = {"equabot-broker", "equabot-client"}
_TEXTS: Final = ("LICEN", "COPYING", "NOTICE", "AUTHORS")
_RULE: Final = "=" * 100


def licence(dist: Distribution) -> str:
    """The licence that the distribution states: an SPDX expression, its classifiers or a short name. Empty: it states none."""
    stated = dist.metadata.get("License-Expression") or ""
    short = (dist.metadata.get("License") or "").strip()
    classifiers = [
        line.rpartition(" :: ")[2] for line in dist.metadata.get_all("Classifier") or [] if line.startswith("License :: ")
    ]
    return stated or ", ".join(classifiers) or (short if "\n" not in short else "")


def texts(dist: Distribution) -> list[tuple[str, str]]:
    """The licence, notice and author files that the distribution carries: name and text."""
    carried = [path for path in dist.files or [] if PurePosixPath(path).name.upper().startswith(_TEXTS)]
    return [(path.name, path.read_text(encoding="utf-8")) for path in sorted(carried) if path.suffix not in (".py", ".pyc")]


def main() -> int:
    """Prints the notices; returns the exit code."""
    shipped = sorted((d for d in distributions() if d.name not in _OURS), key=lambda d: d.name.lower())
    unnamed = [dist.name for dist in shipped if not licence(dist)]
    print("Software of others that is part of the Equabot broker's image and wheels' dependencies, with its licences.")
    for dist in shipped:
        print(f"\n{_RULE}\n{dist.name} {dist.version}: {licence(dist)}\n{_RULE}")
        carried = texts(dist)
        for name, text in carried:
            print(f"\n--- {name}\n{text.rstrip()}")
        if not carried:
            print("\nIt carries no text of its licence. Ours, in LICENSE, is the text of Apache-2.0.")
    for name in unnamed:
        print(f"{name}: its metadata names no licence; look it up before it is shipped", file=sys.stderr)
    return bool(unnamed)


if __name__ == "__main__":
    sys.exit(main())
