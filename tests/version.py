"""The version of what is tested, read where deploy/release/version.py writes it."""

import tomllib
from pathlib import Path
from typing import Final

VERSION: Final = str(tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"])
