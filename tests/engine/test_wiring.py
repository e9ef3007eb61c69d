"""Who is notified of what is said in two places: the engine's wiring, and the subscriptions of the parts outside it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import equabot_broker

ROOT = Path(equabot_broker.__file__).parent
PLACES = {"engine/wiring.py", "bootstrap/subscriptions.py"}
HOOKS = {"listeners", "usage_listeners", "usage_in_stores", "endings", "wake"}


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _changed(tree: ast.AST) -> Iterator[ast.Attribute]:
    """The attributes that the code assigns, adds to, or appends to."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("append", "insert"):
            targets = [node.func.value]
        yield from (target for target in targets if isinstance(target, ast.Attribute))


def _subscriptions(path: Path) -> list[str]:
    """The hooks of other objects that the module sets."""
    changed = _changed(ast.parse(path.read_text()))
    return [ast.unparse(one) for one in changed if one.attr in HOOKS and not _is_own(one.value)]


def test_only_the_wiring_subscribes() -> None:
    found = {str(path.relative_to(ROOT)): _subscriptions(path) for path in ROOT.rglob("*.py")}
    assert {path for path, hooks in found.items() if hooks} == PLACES


def test_a_constructor_changes_nothing_but_its_own_object() -> None:
    """Of the engine: what it is given it keeps, and does not poke."""
    for path in (ROOT / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                foreign = [one for one in _changed(node) if not _is_own(one.value)]
                assert not foreign, (path, ast.unparse(foreign[0]))


def test_no_module_of_the_engine_is_longer_than_350_lines() -> None:
    long = {str(path) for path in (ROOT / "engine").rglob("*.py") if len(path.read_text().splitlines()) > 350}
    assert not long
