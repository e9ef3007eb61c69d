"""The room of the rules about credentials: small, and nothing but the standard library."""

import ast
import sys
from pathlib import Path

import equabot_broker.domain

ROOM = Path(equabot_broker.domain.__file__).parent
MOST_LINES = 3000


def imported(path: Path) -> set[str]:
    """The modules that a file imports, for annotations as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or ".")
    return found


def test_the_room_is_under_3000_lines() -> None:
    """What is not a rule about credentials belongs to another room: ARCHITECTURE.md lists them."""
    assert sum(len(path.read_text().splitlines()) for path in ROOM.rglob("*.py")) < MOST_LINES


def test_its_modules_import_each_other_and_the_standard_library() -> None:
    """No third-party package and no other room."""
    for path in ROOM.rglob("*.py"):
        others = {name for name in imported(path) if name.partition(".")[0] not in sys.stdlib_module_names}
        assert all(name.startswith("equabot_broker.domain") for name in others), (path.name, others)
