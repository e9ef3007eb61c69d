"""A public name means one thing in the server: a reader who searches for it finds one declaration."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "broker" / "equabot_broker", ROOT / "clients" / "python" / "equabot_cli")


def _declared(tree: ast.Module) -> list[str]:
    """Its public classes and aliases of types: constants are in capitals, and functions are called by their module."""
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    aliases = [target.id for target in targets if isinstance(target, ast.Name) and not target.id.isupper()]
    return [name for name in classes + aliases if name[0].isupper()]


def test_public_names_are_unique() -> None:
    """No two modules declare a class or an alias of the same name."""
    places = defaultdict(list)
    for path in sorted(path for package in PACKAGES for path in package.rglob("*.py")):
        for name in _declared(ast.parse(path.read_text(), str(path))):
            places[name].append(str(path.relative_to(ROOT)))
    assert len(places) > 300
    assert {name: where for name, where in places.items() if len(where) > 1} == {}, "rename one of each"
