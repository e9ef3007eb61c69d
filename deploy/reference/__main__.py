"""Writes the reference pages: `python deploy/reference [DIRECTORY]`, into docs/reference if no directory is given."""

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


def main() -> None:
    """Writes every page."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    directory.mkdir(parents=True, exist_ok=True)
    for name, write in PAGES.items():
        (directory / name).write_text(write(), encoding="utf-8")


main()
