"""JSON that another program wrote, read with suspicion: bounded, without duplicate keys, and no fault holds the text."""

import json
from typing import Any, Final

LARGEST: Final = 4 << 20
"""Bytes a store may have."""


_OBJECTS_MAX: Final = 20_000
_NESTING_MAX: Final = 200
"""Levels of objects and lists. Newer versions of Python decode any number, and code that walks the result would fail."""


Json = dict[str, Any]


class Malformed(Exception):
    """The text is not a store: why, and at which byte offset, if known. Never a byte of the text."""

    def __init__(self, why: str, *, offset: int | None = None) -> None:
        super().__init__(why if offset is None else f"{why} (at byte {offset})")
        self.offset = offset


def decode(text: bytes, *, largest: int = LARGEST) -> object:
    """Any JSON of another program, read with suspicion. Raises Malformed, and nothing chained to it holds the text."""
    if len(text) > largest:
        raise Malformed(f"it is larger than {largest >> 20} MiB")
    if not text.strip(b" \t\r\n\0"):
        raise Malformed("it is empty: restore it from a backup, or remove it to start again")
    if (openers := text.count(b"{") + text.count(b"[")) > _OBJECTS_MAX:  # which keep the decoder busy, however small they are
        raise Malformed(f"it has more than {_OBJECTS_MAX:,} objects and lists")
    mark = len(_MARK) if text.startswith(_MARK) else 0
    try:
        found = _DECODER.decode(text[mark:].decode())
        if openers <= _NESTING_MAX or not _is_deep(found):
            return found
        fault = Malformed("it is nested too deeply")
    except Malformed as malformed:
        fault = malformed
    except UnicodeDecodeError as error:
        fault = Malformed("it is not UTF-8 text", offset=mark + error.start)
    except json.JSONDecodeError as error:
        at = mark + len(error.doc[: error.pos].encode())
        broken_off = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated string")
        fault = Malformed("it breaks off in the middle" if broken_off else "it is not JSON", offset=at)
    except ValueError:
        fault = Malformed("it holds a number too long to be one")
    except RecursionError:
        fault = Malformed("it is nested too deeply")
    raise fault


def _is_deep(found: object) -> bool:
    """Whether there is a level below the last one that is allowed. It goes level by level, so it needs no stack."""
    level: list[Any] = [[found]]
    for _ in range(_NESTING_MAX + 1):
        lists = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in lists for inner in each if isinstance(inner, dict | list)]
    return bool(level)


_MARK: Final = b"\xef\xbb\xbf"


def _object(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Writing it back would lose one of them without a word.
        raise Malformed("a key comes twice in one object: keep one of the two")
    return found


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:  # infinite
        raise Malformed("it holds a number that is out of range")
    return value


def _no_number(_: str) -> float:
    raise Malformed("it holds NaN or Infinity, which are not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_no_number)
