"""Reads a document with small readers, one per node. They are combined into tables, and one report collects all faults.

A reader takes a `ConfigNode` and returns the value, or raises `ValueRefused`. The enclosing section or list adds the fault,
with its line, to the report and continues. So one reading finds every fault.
"""

import re
from collections.abc import Callable, Iterator
from collections.abc import Mapping as Dict
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from equabot_broker.domain.known_names import meant
from equabot_broker.schema.faults import ConfigFault, Noted, ValueRefused, looks_secret, quote
from equabot_broker.schema.tree import Listing, Mapping, Node, Scalar

T = TypeVar("T")
K = TypeVar("K")
_VARIABLE: Final = re.compile("[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_PLAIN_KEY: Final = re.compile(r"[\w.:@/+*-]{1,64}", re.ASCII)


class FaultReport:
    """All faults of one file, and the line of every value in it."""

    def __init__(self, file: str = "") -> None:
        self.file = file
        self._faults: list[tuple[int, ConfigFault]] = []
        self._lines: dict[str, int] = {}

    def seen(self, path: str, line: int) -> None:
        """Records the line of a value."""
        self._lines.setdefault(path, line)

    def given(self, path: str) -> bool:
        """Whether the file has this path."""
        return path in self._lines

    def sound(self, *paths: str) -> bool:
        """Whether no fault is at or under these paths, so that a rule about their values can be checked."""
        return not any(fault.path.startswith(paths) for _, fault in self._faults)

    def refuse(self, path: str, message: str, *, line: int | None = None) -> None:
        """Adds a fault at a path. Without a line, it has the line of the path or of the closest part of it."""
        found = line if line is not None else self._line(path)
        self._faults.append((found, ConfigFault(f"{self.file}:{found}" if found else self.file, path, message)))

    def refuse_outside(self, where: str, message: str) -> None:
        """Adds a fault outside the file: of a variable or a flag."""
        self._faults.append((0, ConfigFault(where, "", message)))

    def faults(self) -> tuple[ConfigFault, ...]:
        """The faults, by line."""
        return tuple(fault for _, fault in sorted(self._faults, key=lambda found: found[0]))

    def _line(self, path: str) -> int:
        while path and path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._lines.get(path, 0)


@dataclass(frozen=True, slots=True)
class ConfigNode:
    """A node of the document, its path, and the report for its faults."""

    node: Node
    path: str
    report: FaultReport

    def refuse(self, message: str) -> None:
        """Adds a fault of this node to the report."""
        self.report.refuse(self.path, message, line=self.node.line)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Adds a ValueRefused that is raised inside to the report, as a fault of this node."""
        try:
            yield
        except Noted:
            return
        except ValueRefused as refused:
            message = str(refused)
        else:
            return
        self.refuse(message)

    def text(self) -> str:
        """The scalar's text. Raises ValueRefused for a list, a section, and a key without a value."""
        if not isinstance(self.node, Scalar):
            raise ValueRefused(f"must be a single value, not {_kind(self.node)}")
        if self.node.null:
            raise ValueRefused("has no value; add one, or remove the key")
        return self.node.text

    def items(self) -> Iterator["ConfigNode"]:
        """The items of a list. Raises ValueRefused for anything else."""
        if not isinstance(self.node, Listing):
            raise ValueRefused(f"must be a list, such as [a, b], not {_kind(self.node)}")
        for number, item in enumerate(self.node.items):
            yield self._child(f"{self.path}[{number}]", item)

    def pairs(self) -> Iterator[tuple[str, "ConfigNode"]]:
        """The keys of a section with their nodes. A section without content has no keys. Raises ValueRefused for anything
        else.

        A key that is there twice is a fault, and is returned once.
        """
        if isinstance(self.node, Scalar) and self.node.null:
            return
        if not isinstance(self.node, Mapping):
            raise ValueRefused(f"must be a section of keys, not {_kind(self.node)}")
        lines: dict[str, int] = {}
        for key, value in self.node.pairs:
            child = self._child(under(self.path, key.text), value, line=key.line)
            if key.text in lines:
                self.report.refuse(child.path, f"is a duplicate of line {lines[key.text]}; keep one", line=key.line)
            else:
                lines[key.text] = key.line
                yield key.text, child

    def _child(self, path: str, node: Node, *, line: int | None = None) -> "ConfigNode":
        self.report.seen(path, line or node.line)
        return ConfigNode(node, path, self.report)


Reader = Callable[[ConfigNode], T]


@dataclass(frozen=True, slots=True)
class Text(Generic[T]):
    """A single value. `parse` returns it or raises ValueRefused."""

    parse: Callable[[str], T]

    def __call__(self, place: ConfigNode) -> T:
        return self.parse(place.text())


@dataclass(frozen=True, slots=True)
class ConfigKey(Generic[T]):
    """A reader, and what the reference says about its key: the meaning as a sentence, the default, and an example.

    An empty `default`: the reference shows the default of the section's class. `argument` is the argument of that class, if
    it differs from the key. `shown` is the reader that the reference describes, if `of` is a function.
    """

    of: Reader[T]
    means: str
    default: str = ""
    example: str = ""
    argument: str = ""
    shown: Reader[Any] | None = None

    def __call__(self, place: ConfigNode) -> T:
        return self.of(place)


@dataclass(frozen=True, slots=True)
class Many(Generic[T]):
    """A list of distinct values that `of` reads. With `some`, it must not be empty."""

    of: Reader[T]
    some: bool = False

    def __call__(self, place: ConfigNode) -> tuple[T, ...]:
        found: list[T] = []
        items = list(place.items())
        if self.some and not items:
            raise ValueRefused("is empty; list at least one, or remove the key")
        for item in items:
            with item.refusing():
                value = self.of(item)
                if value in found:
                    raise ValueRefused("is in the list already; keep one")
                found.append(value)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Named(Generic[K, T]):
    """A section whose keys are names that the operator chooses. `name` returns a name or raises ValueRefused."""

    name: Callable[[str], K]
    of: Reader[T]

    def __call__(self, place: ConfigNode) -> Dict[K, T]:
        found: dict[K, T] = {}
        for key, child in place.pairs():
            values: list[T] = []
            with child.refusing():
                values.append(self.of(child))
            with child.refusing():
                name = self.name(key)
                if name in found:
                    raise ValueRefused("is another spelling of a name above; keep one")
                found.update((name, value) for value in values)
        return MappingProxyType(found)


@dataclass(frozen=True, slots=True)
class OneOf:
    """Exactly one of several kinds, as `kind: {…}`, or as `kind` alone if it needs no keys. Returns the kind and its value."""

    kinds: Dict[str, Reader[Any]]

    def __call__(self, place: ConfigNode) -> tuple[str, Any]:
        if isinstance(place.node, Scalar):
            alone = place.text()
            return self._read(alone, ConfigNode(Scalar(place.node.line, "", null=True), place.path, place.report))
        pairs = list(place.pairs())
        if len(pairs) != 1:
            raise ValueRefused(f"must name exactly one of {', '.join(self.kinds)}, not {len(pairs)}")
        return self._read(*pairs[0])

    def _read(self, kind: str, place: ConfigNode) -> tuple[str, Any]:
        if kind not in self.kinds:
            raise ValueRefused(_unknown(kind, self.kinds))
        return kind, self.kinds[kind](place)


class Section(Generic[T]):
    """A section of fixed keys: the table of their readers, and the class that is built from the values.

    A reader may have the name of its argument, if that differs from the key. Keys in `needs` are required.
    """

    def __init__(
        self,
        build: Callable[..., T],
        keys: Dict[str, Reader[Any] | tuple[str, Reader[Any]]],
        *,
        needs: tuple[str, ...] = (),
    ) -> None:
        self.build = build
        self.needs = needs
        self.keys = {key: _for_argument(key, what) for key, what in keys.items()}

    def __call__(self, place: ConfigNode) -> T:
        given: dict[str, Any] = {}
        missing = list(self.needs)
        for key, child in place.pairs():
            if key in missing:
                missing.remove(key)
            with child.refusing():
                if key not in self.keys:
                    raise ValueRefused(_unknown(key, self.keys))
                argument, reader = self.keys[key]
                if argument in given:
                    raise ValueRefused("sets the same as another key of this section; keep one")
                given[argument] = reader(child)
        if missing:
            raise ValueRefused(f"lacks {' and '.join(missing)}; add it")
        if any(self.keys[key][0] not in given for key in self.needs):
            raise Noted
        return self.build(**given)


def _for_argument(key: str, what: Reader[Any] | tuple[str, Reader[Any]]) -> tuple[str, Reader[Any]]:
    if isinstance(what, tuple):
        return what
    return (what.argument or key if isinstance(what, ConfigKey) else key), what


def _unknown(key: str, known: Dict[str, Any]) -> str:
    if key == "<<":
        return "is a YAML merge key, which the configuration does not allow; write each key"
    if _VARIABLE.fullmatch(key):
        return "unknown key; put a credential into the environment or a .env file, not here"
    hint = meant(key, known) or f"; known keys: {', '.join(known) or 'none'}"
    return f"unknown key{hint}"


def under(path: str, key: str) -> str:
    """The path of a key of a section. A key that may be a secret is not shown in it."""
    shown = "(hidden)" if looks_secret(key) or not _PLAIN_KEY.fullmatch(key) else key
    return f"{path}.{shown}" if path else shown


def _kind(node: Node) -> str:
    match node:
        case Scalar(null=True):
            return "nothing"
        case Scalar(text=text):
            return quote(text)
        case Listing():
            return "a list"
        case Mapping():
            return "a section of keys"
