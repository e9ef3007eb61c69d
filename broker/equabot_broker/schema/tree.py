"""Parses YAML text into a small tree of scalars, lists and mappings. Every node has its line.

The text is composed and never constructed, so a tag makes no object. The depth and the number of nodes, with aliases
expanded, are bounded, so no text makes reading slow. No error quotes the text.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from equabot_broker.schema.faults import ValueRefused

if TYPE_CHECKING:
    import yaml

_DEPTH_MAX: Final = 30
_NODES_MAX: Final = 20_000
_TAG: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(
    _TAG + kind for kind in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
)
"""The tags that YAML assigns to text without a tag."""
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*\"""")
_TOKEN: Final = re.compile(r"'(<[a-z -]+>|.{0,2})'")


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written, without its quotes. `null`: there is no text, or `~` or `null` without quotes."""

    line: int
    text: str
    null: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """`[a, b]`."""

    line: int
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """`{a: b}`, in order. A key may be there twice."""

    line: int
    pairs: tuple[tuple[Scalar, "Node"], ...]


Node = Scalar | Listing | Mapping


class NotYaml(ValueRefused):
    """The text is not valid YAML, or uses a part of YAML that is not allowed. `line` is 0 if the line is not known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> Node:
    """The tree of the document in the text. Empty text is an empty mapping.

    Raises NotYaml. It has no cause and no context, because PyYAML's errors contain the text.
    """
    import yaml  # noqa: PLC0415  (1.5 MiB that a broker without a configuration file need not load)

    try:
        root = _compose(text)
        return Mapping(1, ()) if root is None else _Copying().node(root, 0)
    except NotYaml as too_much:
        unreadable = NotYaml(too_much.line, str(too_much))
    except yaml.MarkedYAMLError as malformed:
        mark = malformed.problem_mark or malformed.context_mark
        unreadable = NotYaml(0 if mark is None else mark.line + 1, _reason(malformed))
    except yaml.reader.ReaderError as bad_character:
        line = text.count("\n", 0, bad_character.position) + 1
        unreadable = NotYaml(line, "has a control character; remove it")
    except (yaml.YAMLError, ValueError, OverflowError):
        # PyYAML does not catch Python's errors for a `\U00110000` escape or a `%YAML` version of a thousand digits.
        unreadable = NotYaml(0, "is not valid YAML: it has an escape or a number that is out of range")
    raise unreadable


def _reason(malformed: "yaml.MarkedYAMLError") -> str:
    """PyYAML's message. Names of tokens in quotes, such as '<block end>', stay; quoted parts of the text are removed."""
    complaint = malformed.problem or malformed.context or "cannot be parsed"
    shown = _QUOTED.sub(lambda found: found[0] if _TOKEN.fullmatch(found[0]) else "…", complaint)
    start, end = malformed.context_mark, malformed.problem_mark
    begun = f" (in the block that begins on line {start.line + 1})" if start and end and start.line != end.line else ""
    remedy = "indent with spaces, not tabs" if "'\\t'" in shown else "correct this line or the line before"
    return f"is not valid YAML: {shown}{begun}; {remedy}"


def _compose(text: str) -> "yaml.Node | None":
    """PyYAML's nodes. Their depth and number are bounded while they are composed."""
    import yaml  # noqa: PLC0415

    class Composer(yaml.SafeLoader):
        depth = nodes = 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            self.depth, self.nodes = self.depth + 1, self.nodes + 1
            _check(self.line + 1, depth=self.depth, nodes=self.nodes)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    return Composer(text).get_single_node()


class _Copying:
    """Converts PyYAML's nodes. An alias is copied wherever it is used, so that the bounds hold for the copies as well."""

    def __init__(self) -> None:
        self._nodes = 0

    def node(self, node: Any, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._nodes += 1
        _check(line, depth=depth, nodes=self._nodes)
        if node.tag not in _TAGS:
            raise NotYaml(line, "has a tag (`!…`), which the configuration does not allow; remove it")
        match node.id:
            case "scalar":
                return Scalar(line, node.value, node.tag == _TAG + "null")
            case "sequence":
                return Listing(line, tuple(self.node(item, depth + 1) for item in node.value))
            case _:
                return Mapping(line, tuple((self._key(k), self.node(v, depth + 1)) for k, v in node.value))

    def _key(self, node: Any) -> Scalar:
        copy = self.node(node, 0) if node.id == "scalar" else None
        if isinstance(copy, Scalar):
            return copy
        raise NotYaml(node.start_mark.line + 1, "has a list or a mapping as a key; write the key as plain text")


def _check(line: int, *, depth: int, nodes: int) -> None:
    if depth > _DEPTH_MAX:
        raise NotYaml(line, f"is nested deeper than {_DEPTH_MAX} levels; reduce the nesting")
    if nodes > _NODES_MAX:
        raise NotYaml(line, f"has more than {_NODES_MAX} values, with aliases expanded; remove some of them")
