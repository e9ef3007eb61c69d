"""`python-client.md`: the public names of `equabot_client`, with the signatures as the source has them."""

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any, Final

from pages import code, page, prose

PACKAGE: Final = Path(__file__).parents[2] / "clients" / "python" / "equabot_client"
ABOUT: Final = """\
The library `equabot-client` gives an agent its leases. How to use it is in its
[README](../../clients/python/README.md). Every name on this page is public; a
module or a name that begins with an underscore is not."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def write() -> str:
    """The page."""
    shown: set[int] = set()
    return page("Python client", ABOUT, *(part for name in _modules() for part in _module(import_module(name), shown)))


def _modules() -> Iterator[str]:
    """The package first, then its public modules by name."""
    found = sorted(path for path in PACKAGE.rglob("*.py") if not path.name.startswith("_") or path.name == "__init__.py")
    for path in sorted(found, key=lambda path: (path.parent / "" if path.name == "__init__.py" else path).parts):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if not any(part.startswith("_") for part in parts[:-1]):
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(module: ModuleType, shown: set[int]) -> Iterator[str]:
    names = getattr(module, "__all__", None) or _own(module)
    parts = [_named(name, getattr(module, name)) for name in names if _once(getattr(module, name), shown)]
    if parts:
        yield f"## {module.__name__}"
        yield prose(inspect.cleandoc(module.__doc__ or ""))
        yield from parts


def _own(module: ModuleType) -> list[str]:
    """The public names that the module itself defines, in the order of its source."""
    tree = ast.parse(inspect.getsource(module))
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | Function)]
    return [name for name in defined if not name.startswith("_")]


def _once(thing: Any, shown: set[int]) -> bool:
    """Whether the thing is a class or function that is not on the page yet: the package names some of its modules' again."""
    if not (inspect.isclass(thing) or inspect.isfunction(thing)) or id(thing) in shown:
        return False
    shown.add(id(thing))
    return True


def _named(name: str, thing: Any) -> str:
    source = dedent(inspect.getsource(thing))
    (node,) = ast.parse(source).body
    return "\n\n".join(_class(node, source) if isinstance(node, ast.ClassDef) else _function(node, name, "###"))


def _function(node: Function, name: str, level: str) -> Iterator[str]:
    yield f"{level} {name}"
    yield code(_signature(node, name), "python")
    yield from filter(None, [prose(ast.get_docstring(node) or "")])


def _class(node: ast.ClassDef, source: str) -> Iterator[str]:
    bases = [base for base in map(ast.unparse, node.bases) if not base.startswith("_")]
    yield f"### {node.name}"
    yield code("\n".join((f"class {node.name}{_listed(bases)}:", *_fields(node, source))), "python")
    yield from filter(None, [prose(ast.get_docstring(node) or "")])
    for method in node.body:
        if isinstance(method, Function) and not method.name.startswith("_"):
            yield from _function(method, f"{node.name}.{method.name}", "####")


def _fields(node: ast.ClassDef, source: str) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign | ast.Assign):
            target = statement.target if isinstance(statement, ast.AnnAssign) else statement.targets[0]
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield f"    {ast.get_source_segment(source, statement)}"
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            yield f"    {_signature(statement, 'def __init__')}"


def _signature(node: Function, name: str) -> str:
    marks = {ast.unparse(mark) for mark in node.decorator_list}
    if "property" in marks and node.returns is not None:
        return f"{name}: {ast.unparse(node.returns)}"
    before = "".join(f"@{mark}\n" for mark in sorted(marks & {"classmethod", "staticmethod", "contextmanager"}))
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    arguments = node.args
    if arguments.args and arguments.args[0].arg in {"self", "cls"}:
        del arguments.args[0]
    word = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{before}{word}{name}({ast.unparse(arguments)}){returns}"


def _listed(bases: list[str]) -> str:
    return f"({', '.join(bases)})" if bases else ""
