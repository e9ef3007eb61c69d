"""`configuration.md`: every key of the configuration, from the tables that read it."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import partial
from types import FunctionType
from typing import Any, Final

from pages import literal, names, page, sentence, table

from equabot_broker.config.keys import document_keys
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.schema import values
from equabot_broker.schema.reading import ConfigKey, Many, Named, OneOf, Section, Text

ABOUT: Final = """\
The configuration is the file `$EQUABOT_HOME/equabot.yaml`. Every key may be left out, and an unknown key is refused.
[Configuring the broker](../configure.md) explains how the keys work together.

In a key's name, a word in angle brackets is a name of your choice, and `[]` is any item of a list. Where the default is
"none", nothing is set."""
DURATIONS: Final = (values.duration, values.span, values.hours, values.milliseconds)

WORDS: Final = ("none", "required", "unlimited")
"""Defaults that are not values."""


@dataclass(frozen=True)
class Row:
    """One key. `build` makes the section that the key is in."""

    path: str
    key: ConfigKey[Any]
    argument: str
    build: Callable[..., Any] | None


def write(document: Section[Any] | None = None) -> str:
    """The page."""
    document = document or document_keys()
    sections = []
    for name, row in ((row.path, row) for row in _below(document, "") if not set(row.path) & set(".[<")):
        inside = list(_inside(row.key, name))
        about = [sentence(row.key.means)] if inside else []
        rows = [row, *inside] if row.key.example else inside
        sections.append("\n\n".join((f"## {name}", *about, _table(rows))))
    return page("Configuration", ABOUT, *sections, "## Types", _types(document))


def _table(rows: list[Row]) -> str:
    return table(("key", "type", "default", "example", "meaning"), map(_row, rows))


def _row(row: Row) -> tuple[str, ...]:
    return (literal(row.path), _type(row.key), _default(row), literal(row.key.example), sentence(row.key.means))


def _below(reader: Any, path: str) -> Iterator[Row]:
    """The keys of a section or of kinds, each followed by those inside it."""
    match reader:
        case Section():
            for name, (argument, key) in reader.keys.items():
                yield from _with_inside(f"{path}.{name}".lstrip("."), key, argument, reader.build)
        case OneOf():
            for name, key in reader.kinds.items():
                yield from _with_inside(f"{path}.{name}", key, "", None)
        case Many():
            yield from _below(reader.of, f"{path}[]")
        case Named():
            yield from _below(reader.of, f"{path}.<{_label(reader.name)}>")
        case ConfigKey():
            yield from _inside(reader, path)


def _with_inside(path: str, key: Any, argument: str, build: Callable[..., Any] | None) -> Iterator[Row]:
    if not isinstance(key, ConfigKey):
        raise SystemExit(f"{path}: its line in the table of keys needs a ConfigKey with its meaning")
    yield Row(path, key, argument, build)
    yield from _inside(key, path)


def _inside(key: ConfigKey[Any], path: str) -> Iterator[Row]:
    return _below(key.shown or key.of, path)


def _type(reader: Any) -> str:
    match reader:
        case ConfigKey():
            return _type(reader.shown or reader.of)
        case Text():
            return _kind(reader.parse)
        case Many():
            return f"list of {_type(reader.of)}"
        case Named():
            return f"section of {_type(reader.of)} by {_label(reader.name)}" if not _is_section(reader.of) else "section"
        case OneOf():
            return f"one of {names(reader.kinds)}"
    return "section"


def _is_section(reader: Any) -> bool:
    return isinstance(reader, Section | OneOf | Named)


def _kind(parse: Any) -> str:
    match parse:
        case partial(func=values.one_of, args=(kind,)):
            return _words(member.value for member in kind)
        case partial(func=values.word, args=(known,)):
            return _words(known)
        case partial(args=(inner,)):
            return f"{_kind(inner)}, or `*`"
    return f"[{_label(parse)}](#types)"


def _words(words: Any) -> str:
    *first, last = map(literal, words)
    return f"{', '.join(first)} or {last}" if first else last


def _label(parse: Any) -> str:
    """The name of a type, which is that of the function that understands it."""
    if isinstance(parse, partial):
        return str(parse.args[0].__name__).lower()
    return "secret" if parse is SecretValue else str(parse.__name__).replace("_", " ")


def _default(row: Row) -> str:
    if row.key.default:
        return _said(row.key.default)
    if _is_section(row.key.shown or row.key.of) and not row.key.example:
        return ""
    if not is_dataclass(row.build):
        raise SystemExit(f"{row.path}: its ConfigKey needs a default")
    (field,) = (field for field in fields(row.build) if field.name == row.argument)
    value = field.default_factory() if callable(field.default_factory) else field.default
    return _said(_written(value, row.key.of))


def _said(default: str) -> str:
    """A value as code, a description as it is."""
    return default.replace("<", "\\<") if " " in default or default in WORDS else literal(default)


def _written(value: Any, reader: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float) and isinstance(reader, Text) and reader.parse in DURATIONS:
        return values.shown(value)
    return str(value) if value else "none"


def _types(document: Section[Any]) -> str:
    """The functions of `schema.values` that tables use, each with what its docstring says."""
    used: dict[str, str] = {}
    for row in _below(document, ""):
        for parse in _parsers(row.key):
            used[_label(parse)] = inspect.getdoc(parse) or ""
    return table(
        ("type", "how it is written"), sorted((literal(name), text.partition(" Returns ")[0]) for name, text in used.items())
    )


def _parsers(reader: Any) -> Iterator[FunctionType]:
    match reader:
        case ConfigKey():
            yield from _parsers(reader.shown or reader.of)
        case Many():
            yield from _parsers(reader.of)
        case Named():
            yield from _parsers(Text(reader.name))
            yield from _parsers(reader.of)
        case Text(parse=partial(func=func, args=(inner,))) if func not in (values.one_of, values.word):
            yield from _parsers(Text(inner))
        case Text(parse=FunctionType() as parse):
            yield parse
