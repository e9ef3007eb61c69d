"""Edits the configuration file for commands. An edit changes one entry, and the rest of the text is not changed.

An edit uses the positions of values that PyYAML reports. The result is then parsed and compared: it must have the old content
and the change, and nothing else. If no way to write the change passes this check, the file is not changed.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from equabot_broker.schema.faults import ValueRefused
from equabot_broker.schema.tree import Listing, Mapping, Node, NotYaml, Scalar, parse

CLAUDE: Final = "anthropic:claude-cli"
_STEP: Final = 2
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")

Tree = dict[str, Any]
Keys = tuple[str, ...]


def with_profile(text: str, profile_id: str, *, provider: str, mode: str) -> str:
    """The file's text with the profile under `auth.profiles`. The same text if it is already there with this mode.

    Raises ValueRefused, with the lines to add by hand.
    """
    by_hand = f'add it by hand, under auth.profiles: "{profile_id}": {{provider: {provider}, mode: {mode}}}'
    keys = ("auth", "profiles", profile_id)
    before = _read(text, by_hand)
    if _at(before, (*keys, "mode")) == mode:
        return text
    if _at(before, (*keys, "mode")) is not None:
        return _proved(_replacements(text, (*keys, "mode"), mode), _set(before, (*keys, "mode"), mode), by_hand)
    if any(_at(before, keys[:depth]) and not isinstance(_at(before, keys[:depth]), dict) for depth in (1, 2, 3)):
        raise ValueRefused(f"has a value where a section is expected; {by_hand}")
    entry = {"mode": mode} if _at(before, keys) else {"provider": provider, "mode": mode}
    there = next(depth for depth in (3, 2, 1, 0) if _has(before, keys[:depth]))
    added: Tree = dict(entry)
    for key in reversed(keys[there:]):
        added = {key: added}
    return _proved(_additions(text, keys[:there], added), _set(before, keys, {**(_at(before, keys) or {}), **entry}), by_hand)


def migrated(text: str) -> str:
    """The file's text with Claude's login as `mode: oauth`. OpenClaw once wrote `mode: token` for both kinds of login.

    The same text if there is nothing to change. Raises ValueRefused.
    """
    keys = ("auth", "profiles", CLAUDE)
    by_hand = f'write it by hand, under auth.profiles: "{CLAUDE}": {{provider: anthropic, mode: oauth}}'
    if _at(_read(text, by_hand), (*keys, "mode")) != "token":
        return text
    return with_profile(text, CLAUDE, provider="anthropic", mode="oauth")


def without_profile(text: str, profile_id: str) -> str:
    """The file's text without the profile under `auth.profiles`. Raises ValueRefused, with the entry to remove by hand."""
    by_hand = f"remove {profile_id} by hand, under auth.profiles"
    keys = ("auth", "profiles", profile_id)
    before = _read(text, by_hand)
    return _proved(_removals(text, keys), _without(before, keys), by_hand) if _has(before, keys) else text


def _read(text: str, by_hand: str) -> Tree:
    try:
        tree = _plain(parse(text))
    except NotYaml as unreadable:
        message = f"{unreadable}; then {by_hand}"
    else:
        if tree is None or isinstance(tree, dict):
            return tree or {}
        message = f"is not a section of keys; correct it, then {by_hand}"
    raise ValueRefused(message)


def _plain(node: Node) -> Any:
    """Raises NotYaml for a duplicate key, because one of its values would be lost."""
    match node:
        case Scalar():
            return None if node.null else node.text
        case Listing():
            return [_plain(item) for item in node.items]
        case Mapping():
            plain = {key.text: _plain(value) for key, value in node.pairs}
            if len(plain) != len(node.pairs):
                raise NotYaml(node.line, "has a duplicate key; keep one")
            return plain


def _at(tree: Any, keys: Keys) -> Any:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _has(tree: Tree, keys: Keys) -> bool:
    return not keys or keys[-1] in (_at(tree, keys[:-1]) or {})


def _set(tree: Tree, keys: Keys, value: Any) -> Tree:
    key, *rest = keys
    return {**tree, key: _set(tree.get(key) or {}, tuple(rest), value) if rest else value}


def _without(tree: Tree, keys: Keys) -> Tree:
    key, *rest = keys
    if rest:
        return {**tree, key: _without(tree[key], tuple(rest))}
    return {name: value for name, value in tree.items() if name != key}


def _proved(candidates: Iterable[str], wanted: Tree, by_hand: str) -> str:
    """The first candidate with the wanted content."""
    for candidate in candidates:
        try:
            if _content(_plain(parse(candidate))) == _content(wanted):
                return candidate
        except NotYaml:
            continue
    raise ValueRefused(f"cannot be edited safely: {by_hand}")


def _content(tree: Any) -> Any:
    """The content of a tree, to compare. An empty section is None, in any of its spellings."""
    return {key: _content(value) for key, value in tree.items()} or None if isinstance(tree, dict) else tree


class _Place(NamedTuple):
    """A value in the text as a node of PyYAML, and its key if it has one."""

    node: Any
    key: Any = None


def _place(text: str, keys: Keys) -> _Place:
    import yaml  # noqa: PLC0415

    place = _Place(yaml.compose(text, Loader=yaml.SafeLoader))
    for name in keys:
        place = next(_Place(value, key) for key, value in place.node.value if key.value == name)
    return place


def _additions(text: str, keys: Keys, added: Tree) -> Iterator[str]:
    """The text with more keys in a section, in each way in which they can be written."""
    newline = "\r\n" if "\r\n" in text else "\n"
    node, key = _place(text, keys)
    if node is None or (key is None and node.id == "scalar"):  # an empty file, or one of comments
        yield _with_lines(text, len(text), _lines(added, 0), newline)
    elif node.id == "scalar":  # a key without a value
        yield _with_lines(text, _line_end(text, node.end_mark.index), _lines(added, key.start_mark.column + _STEP), newline)
        yield f"{text[: node.start_mark.index].rstrip()} {_flow(added)}{text[node.end_mark.index :]}"
    elif node.id == "mapping" and node.flow_style:
        ends = [value.end_mark.index for _, value in node.value[-1:]]
        for end in (*ends, node.end_mark.index - 1):
            yield f"{text[:end]}{', ' if ends and end == ends[0] else ''}{_flow(added)[1:-1]}{text[end:]}"
    elif node.id == "mapping":
        yield _with_lines(text, _line_end(text, _end(node)), _lines(added, node.value[0][0].start_mark.column), newline)


def _replacements(text: str, keys: Keys, value: str) -> Iterator[str]:
    node = _place(text, keys).node
    yield text[: node.start_mark.index] + value + text[node.end_mark.index :]


def _removals(text: str, keys: Keys) -> Iterator[str]:
    """The text without a key and its value, in each way in which they can be removed."""
    node, key = _place(text, keys)
    start, end = key.start_mark.index, node.end_mark.index
    if _place(text, keys[:-1]).node.flow_style:
        after = text[end:].lstrip()
        yield (
            text[:start] + after[1:].lstrip() if after.startswith(",") else text[:start].rstrip().removesuffix(",") + text[end:]
        )
    else:
        line = text.rfind("\n", 0, start) + 1
        yield text[:line] + text[_line_end(text, _end(node)) :].removeprefix("\r").removeprefix("\n")


def _end(node: Any) -> int:
    """The end of the last text in a node. PyYAML ends a block only where the next node begins."""
    while node.id != "scalar" and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end: int = node.end_mark.index
    return end - 1 if node.id == "scalar" and node.style in ("|", ">") else end


def _line_end(text: str, at: int) -> int:
    found = text.find("\n", at)
    end = len(text) if found < 0 else found
    return end - 1 if text[at:end].endswith("\r") else end


def _with_lines(text: str, at: int, lines: Iterable[str], newline: str) -> str:
    before, after = text[:at], text[at:]
    gap = newline if before and not before.endswith("\n") else ""
    return before + gap + newline.join(lines) + (after or newline)


def _lines(added: Tree, column: int) -> Iterator[str]:
    """A section as lines. The innermost section is on one line."""
    for key, value in added.items():
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            yield f"{' ' * column}{_key(key)}:"
            yield from _lines(value, column + _STEP)
        else:
            yield f"{' ' * column}{_key(key)}: {_flow(value)}"


def _flow(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return "{" + ", ".join(f"{_key(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"


def _key(key: str) -> str:
    return key if set(key) <= _PLAIN else f'"{key}"'
