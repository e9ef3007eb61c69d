"""The version of everything that is released: prints it, or writes another one to every place that names it.

    version.py              prints the version, which is the one in pyproject.toml
    version.py 1.2.3        writes 1.2.3 to every place, and opens a section for it in CHANGELOG.md

`make release` calls it before it commits and tags.
"""

import re
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PLACES: Final = (
    "pyproject.toml",
    "clients/python/pyproject.toml",
    "clients/typescript/package.json",
    "clients/typescript/package-lock.json",
    "helm/equabot-broker/Chart.yaml",
    "helm/equabot-broker/README.md",
    "helm/equabot-broker/values.yaml",
    "deploy/kubernetes/base/agent-deployment.yaml",
    "tests/helm/fixtures/consumer/Chart.yaml",
    "SECURITY.md",
    "docs/how-to/gitops.md",
    "docs/how-to/install.md",
    "docs/tutorials/first-pod.md",
)
"""Files that name the version. In them, every occurrence is this version."""

_VERSION: Final = re.compile(r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)")
_UNRELEASED: Final = "## [Unreleased]\n"


def current() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def occurrences(version: str) -> re.Pattern[str]:
    """Matches this version, and not a longer number that contains it."""
    return re.compile(rf"(?<![\d.]){re.escape(version)}(?![\d]|\.\d)")


def write(version: str) -> None:
    """Writes the version to every place. Raises SystemExit, and writes nothing, if one does not name the current version."""
    before = occurrences(current())
    texts = {place: (ROOT / place).read_text() for place in PLACES}
    missing = [place for place, text in texts.items() if not before.search(text)]
    changes = (ROOT / "CHANGELOG.md").read_text()
    if missing or _UNRELEASED not in changes:
        lacking = [f"{place} does not name {current()}" for place in missing] or ["CHANGELOG.md has no section [Unreleased]"]
        sys.exit(f"{'; '.join(lacking)}: correct that, or PLACES in deploy/release/version.py")
    for place, text in texts.items():
        (ROOT / place).write_text(before.sub(version, text))
    section = f"{_UNRELEASED}\n## [{version}] - {datetime.now(UTC).date().isoformat()}\n"
    (ROOT / "CHANGELOG.md").write_text(changes.replace(_UNRELEASED, section, 1))


def main(arguments: list[str]) -> int:
    """Does one of the two; returns the exit code."""
    match arguments:
        case []:
            print(current())
        case [version] if _VERSION.fullmatch(version) and version != current():
            write(version)
        case _:
            print(__doc__, file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
