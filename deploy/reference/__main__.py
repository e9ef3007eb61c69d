"""Writes what is generated from the declarations in the code: `python deploy/reference [DIRECTORY]`.

The files go below DIRECTORY, into the clone if none is given. With `--check` nothing is written: the exit code is 1 if a file
in the clone is stale.
"""

import sys
from pathlib import Path

import api
import cli
import configuration
import errors
import known_providers
import metrics
import providers
import python_client

FILES = {
    "docs/reference/configuration.md": configuration.write,
    "docs/reference/cli.md": cli.write,
    "docs/reference/metrics.md": metrics.write,
    "docs/reference/providers.md": providers.write,
    "docs/reference/errors.md": errors.write,
    "docs/reference/api.md": api.write,
    "docs/reference/python-client.md": python_client.write,
    "clients/python/equabot_cli/built_in_providers.py": known_providers.write,
}
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Writes every file, or compares it."""
    if sys.argv[1:] == ["--check"]:
        return check()
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    for name, write in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(write(), encoding="utf-8")
    return 0


def check() -> int:
    """Prints the name of each file that is stale."""
    stale = [name for name, write in FILES.items() if not (ROOT / name).is_file() or (ROOT / name).read_text() != write()]
    if stale:
        print(f"Stale: {', '.join(stale)}. Run 'make reference' and commit them.", file=sys.stderr)
    return 1 if stale else 0


sys.exit(main())
