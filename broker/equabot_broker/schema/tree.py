"""YAML text → a small tree of scalars, lists and mappings, every node with its line.

Only composed, never constructed: a tag makes no object. Nothing in the text can make reading slow or endless: its size,
its depth and the number of its nodes, aliases followed, are bounded. No error quotes the text.
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
"""What plain YAML resolves to by itself."""
_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*\"""")
_TOKEN: Final = re.compile(r"'(<[a-z -]+>|.{0,2})'")


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as it was written, less its quotes. `null`: nothing was written, or `~` or `null` without quotes."""

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
    """`{a: b}`, in order, with keys that may come twice."""

    line: int
    pairs: tuple[tuple[Scalar, "Node"], ...]


Node = Scalar | Listing | Mapping


class NotYaml(ValueRefused):
    """The text is no YAML, or none that is taken. `line` is 0 when there is none to name."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str) -> Node:
    """The tree of the one document in the text; an empty text is an empty mapping.

    Raises NotYaml, which has no cause and no context: PyYAML's own errors hold the text.
    """
    import yaml  # noqa: PLC0415  (1.5 MiB that a broker without a configuration file need not load)

    try:
        root = _compose(text)
        return Mapping(1, ()) if root is None else _Copying().node(root, 0)
    except NotYaml as too_much:
        unreadable = NotYaml(too_much.line, str(too_much))
    except yaml.MarkedYAMLError as malformed:
        mark = malformed.problem_mark or malformed.context_mark
        unreadable = NotYaml(0 if mark is None else mark.line + 1, _told(malformed))
    except yaml.reader.ReaderError as bad_character:
        line = text.count("\n", 0, bad_character.position) + 1
        unreadable = NotYaml(line, "holds a control character; remove it")
    except (yaml.YAMLError, ValueError, OverflowError):
        # A `\U00110000` escape or a `%YAML` version of a thousand digits: PyYAML lets Python's own errors out.
        unreadable = NotYaml(0, "is not valid YAML: it holds an impossible escape or number")
    raise unreadable


def _told(malformed: "yaml.MarkedYAMLError") -> str:
    """PyYAML's complaint. It quotes names of tokens, as '<block end>', which may stay, and the text, which may not."""
    complaint = malformed.problem or malformed.context or "cannot be parsed"
    told = _QUOTED.sub(lambda found: found[0] if _TOKEN.fullmatch(found[0]) else "…", complaint)
    start, end = malformed.context_mark, malformed.problem_mark
    begun = f" (in what begins on line {start.line + 1})" if start and end and start.line != end.line else ""
    remedy = "indent with spaces, not tabs" if "'\\t'" in told else "correct the YAML here or just above"
    return f"is not valid YAML: {told}{begun}; {remedy}"


def _compose(text: str) -> "yaml.Node | None":
    """PyYAML's nodes, of which deep nesting cannot exhaust the stack, nor a flood of them the patience."""
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
    """PyYAML's nodes → ours. An alias is copied wherever it is, so that the bounds hold for what it makes."""

    def __init__(self) -> None:
        self._nodes = 0

    def node(self, node: Any, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._nodes += 1
        _check(line, depth=depth, nodes=self._nodes)
        if node.tag not in _TAGS:
            raise NotYaml(line, "holds a tag (`!…`), and tags are not used here; remove it")
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
        raise NotYaml(node.start_mark.line + 1, "has a list or a mapping for a key; a key is plain text")


def _check(line: int, *, depth: int, nodes: int) -> None:
    if depth > _DEPTH_MAX:
        raise NotYaml(line, f"is nested deeper than {_DEPTH_MAX} levels; no configuration needs that")
    if nodes > _NODES_MAX:
        raise NotYaml(line, f"has more than {_NODES_MAX} values, aliases followed; no configuration needs that")
