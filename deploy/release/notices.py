"""Prints the licences of all third-party packages in this interpreter's environment: names, versions and texts.

Run it with the interpreter of that environment. It prints a line on standard error for each distribution whose metadata states
no licence, and then exits with 1. A release therefore never ships such a distribution.
"""

import sys
from importlib.metadata import Distribution, distributions
from pathlib import PurePosixPath
from typing import Final

_OURS: Final = {"equabot-broker", "equabot-client"}
_TEXTS: Final = ("LICEN", "COPYING", "NOTICE", "AUTHORS")
_RULE: Final = "=" * 100


def licence(dist: Distribution) -> str:
    """The licence in the metadata: an SPDX expression, classifiers or a short name. Empty without any of them."""
    stated = dist.metadata.get("License-Expression") or ""
    short = (dist.metadata.get("License") or "").strip()
    classifiers = [
        line.rpartition(" :: ")[2] for line in dist.metadata.get_all("Classifier") or [] if line.startswith("License :: ")
    ]
    return stated or ", ".join(classifiers) or (short if "\n" not in short else "")


def texts(dist: Distribution) -> list[tuple[str, str]]:
    """The name and the text of each licence, notice and author file in the distribution."""
    carried = [path for path in dist.files or [] if PurePosixPath(path).name.upper().startswith(_TEXTS)]
    return [(path.name, path.read_text(encoding="utf-8")) for path in sorted(carried) if path.suffix not in (".py", ".pyc")]


def main() -> int:
    """Prints the notices; returns the exit code."""
    shipped = sorted((d for d in distributions() if d.name not in _OURS), key=lambda d: d.name.lower())
    unnamed = [dist.name for dist in shipped if not licence(dist)]
    print("Third-party software in the image of the Equabot broker and in the dependencies of its wheels, with licences.")
    for dist in shipped:
        print(f"\n{_RULE}\n{dist.name} {dist.version}: {licence(dist)}\n{_RULE}")
        carried = texts(dist)
        for name, text in carried:
            print(f"\n--- {name}\n{text.rstrip()}")
        if not carried:
            print("\nThe distribution has no licence text. The LICENSE file of this project is the text of Apache-2.0.")
    for name in unnamed:
        print(f"{name}: the metadata states no licence: check the licence before the release", file=sys.stderr)
    return bool(unnamed)


if __name__ == "__main__":
    sys.exit(main())
