"""Writes the reference pages: `python deploy/reference [DIRECTORY]`, into docs/reference if no directory is given.

With `--check` nothing is written: the exit code is 1 if a page in docs/reference is stale.
"""

import sys
from pathlib import Path

import api
import cli
import configuration
import errors
import metrics
import providers
import python_client

PAGES = {
    "configuration.md": configuration.write,
    "cli.md": cli.write,
    "metrics.md": metrics.write,
    "providers.md": providers.write,
    "errors.md": errors.write,
    "api.md": api.write,
    "python-client.md": python_client.write,
}
DEFAULT = Path(__file__).parents[2] / "docs" / "reference"


def main() -> int:
    """Writes every page, or compares it."""
    if sys.argv[1:] == ["--check"]:
        return check()
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    directory.mkdir(parents=True, exist_ok=True)
    for name, write in PAGES.items():
        (directory / name).write_text(write(), encoding="utf-8")
    return 0


def check() -> int:
    """Prints which pages are not what would be written."""
    pages = ((DEFAULT / name, write()) for name, write in PAGES.items())
    stale = [page.name for page, text in pages if not page.is_file() or page.read_text(encoding="utf-8") != text]
    if stale:
        print(f"docs/reference: stale: {', '.join(stale)}. Run 'make reference' and commit the pages.", file=sys.stderr)
    return 1 if stale else 0


sys.exit(main())
