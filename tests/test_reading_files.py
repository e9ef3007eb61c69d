"""Where a file is opened. Everywhere else `files.reading` reads it, so that no pipe, device or endless file can hang the
broker or fill its memory. A reviewer who wants to know what else could reads this list."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SEARCHED = ("broker", "clients/python/equabot_cli")

REASONS = {
    "broker/equabot_broker/files/confined.py": "directories",
    "broker/equabot_broker/files/reading.py": "the one reader",
    "broker/equabot_broker/cli/audit.py": "a log of any size that a person names on the command line",
    "broker/equabot_broker/cli/hangups.py": "/dev/tty, of which nothing is read",
    "clients/python/equabot_cli/streams.py": "/dev/null",
    "broker/equabot_broker/dashboard/audit_tail.py": "the audit log, of which it reads the end",
    "broker/equabot_broker/dashboard/document.py": "parts of the page, which belong to the package",
    "broker/equabot_broker/identity/agent_socket.py": "the broker's own lock file, which it creates",
    "broker/equabot_broker/rpc/tls.py": "memory, which it creates and which the TLS library reads as a file",
    "broker/equabot_broker/sources/_program.py": "memory, which it creates and which the program reads",
    "broker/equabot_broker/storage/_state_file.py": "the broker's own database, which it creates",
    "broker/equabot_broker/storage/_store_lock.py": "the broker's own lock files, which it creates",
    "broker/equabot_broker/storage/edited_file.py": "the broker's own guard and backup files, which it creates",
    "broker/equabot_broker/storage/migrations.py": "a backup, which it creates",
    "broker/equabot_broker/storage/replacing.py": "the new file, which it creates, and its directory",
    "broker/equabot_broker/telemetry/_audit_anchor.py": "the anchor of the audit log, which it writes",
    "broker/equabot_broker/telemetry/_audit_output.py": "the audit log, which it appends to",
}
"""Every file of the broker and of the command line that opens one. A new one needs a reason that a reviewer accepts."""

_READERS = {"read_text", "read_bytes"}
_OPENERS = {"os", "io", "codecs", "builtins"}


def _opens(node: ast.AST) -> bool:
    """`open(…)`, `os.open(…)`, `os.fdopen(…)`, `Path.open(…)` with a mode, `Path.read_text` and `read_bytes`."""
    match node:
        case ast.Call(func=ast.Name(id="open")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="open" | "fdopen")) if module in _OPENERS:
            return True
        case ast.Call(func=ast.Attribute(attr="open"), args=[ast.Constant(value=str()), *_]):
            return True
        case ast.Attribute(attr=name):
            return name in _READERS
    return False


def _files() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(path for folder in SEARCHED for path in (ROOT / folder).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(), str(path))


def test_files_are_read_in_one_way() -> None:
    """S28: the files that open one are exactly those listed, each with its reason."""
    found = {file for file, tree in _files() if any(map(_opens, ast.walk(tree)))}
    assert found - REASONS.keys() == set(), "a file is opened here: use equabot_broker.files.reading, or say why not above"
    assert REASONS.keys() - found == set(), "no file is opened here any more: remove the reason"


@pytest.mark.parametrize(
    ("source", "opens"),
    [
        ("open(path)", True),
        ("os.open(path, flags)", True),
        ("os.fdopen(number)", True),
        ("path.open('rb')", True),
        ("path.read_text()", True),
        ("map(Path.read_bytes, paths)", True),
        ("api.open()", False),
        ("read_whole(path, limit=1)", False),
    ],
)
def test_the_search_finds_what_it_looks_for(source: str, *, opens: bool) -> None:
    """Also what is handed on."""
    assert any(map(_opens, ast.walk(ast.parse(source)))) is opens
