"""Removes secrets from a text before it is logged: texts that look like a key, and the live values and pieces of them.

This is the last protection. The callers of a log keep secrets out of it themselves.
"""

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import quote

from equabot_broker.domain.errors import BrokerError, CannotStart
from equabot_broker.domain.masking import KEY_BEGINNINGS
from equabot_broker.domain.secret_value import SecretValue

MASK: Final = "[redacted]"
PIECE: Final = 8
"""Consecutive characters of a live value that are never shown."""

_SHORTEST: Final = 4
"""The length of the shortest value that is masked. Shorter ones occur in most lines by chance."""
_GRAM: Final = 5
_STRIDE: Final = PIECE - _GRAM + 1
_BETWEEN: Final = "\0"
_LONGEST: Final = 16_384
"""Characters of a text that are kept. The rest is cut off."""
_DEEPEST: Final = 6
_WIDEST: Final = 100

_SHAPES: Final = re.compile(
    rf"""
      \b(?:sk|rk|pk)-[A-Za-z0-9_-]{{8,}}                              # Anthropic, OpenAI, OpenRouter, DeepSeek…
    | \b(?:gsk|hf|xai|nvapi|pplx|r8|tvly|fc|csk|vck|dop_v1|glpat)[_-][A-Za-z0-9_-]{{16,}}
    | \beqb_[A-Za-z0-9_-]{{16,}}                                       # a lease token
    | (?<![A-Za-z0-9])(?i:{KEY_BEGINNINGS})(?=[A-Za-z_.-]*[0-9])[A-Za-z0-9_.-]{{12,}}  # as in names
    | \beyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{8,}}(?:\.[A-Za-z0-9_-]*)?  # JWT
    | ((?i:\bbearer[ ]{{1,4}}))[A-Za-z0-9+/_.~=-]{{8,}}
    | ((?i:(?:key|token|secret|passw(?:or)?d|credential|authorization)["']?[ ]{{0,4}}[=:][ ]{{0,4}}["']?))
      (?=[A-Za-z+/_.~=-]{{0,64}}[0-9])[A-Za-z0-9+/_.~=-]{{16,}}
    """,
    re.VERBOSE,
)

_SECRET_NAME: Final = re.compile(r"(?i:key|token|secret|password|passwd|credential|authorization)$")


def _nothing() -> Collection[SecretValue]:
    return ()


@dataclass(frozen=True, slots=True)
class _Index:
    """The live values, prepared for the search. `grams` has the hashes of every fourth run of five characters. Each piece of
    eight characters contains such a run. `values` has all values, with a separator between them.
    `short` has the values that are shorter than a piece.
    """

    source: Collection[SecretValue]
    grams: frozenset[int]
    values: SecretValue
    short: tuple[SecretValue, ...]


class Redactor:
    """Masks secrets. `live` returns the current values. It returns the same object until they change, because another object is
    indexed again. Any thread may call the methods."""

    def __init__(self, live: Callable[[], Collection[SecretValue]] = _nothing) -> None:
        self._live = live
        self._index = _Index((), frozenset(), SecretValue(""), ())

    def watch(self, live: Callable[[], Collection[SecretValue]]) -> None:
        """Replaces the function that returns the live values."""
        self._live = live

    def text(self, text: str) -> str:
        """The text without secrets, cut to 16,384 characters."""
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}… ({len(text) - _LONGEST} more characters)"
        return _masked(text, self._current())

    def clean(self, value: object, depth: int = _DEEPEST) -> object:
        """The value as JSON data without secrets. Containers keep their structure. Exceptions, protobuf messages and bytes can
        print a secret, and become the name of their type."""
        match value:
            case None | bool() | int():
                return value
            case float():
                return value if math.isfinite(value) else str(value)
            case str():
                return self.text(value)
            case bytes() | bytearray() | memoryview():
                return f"<{len(value)} bytes>"
            case _ if _prints_secrets(value):
                return safe_text(value)
            case Mapping() | Sequence() | AbstractSet() if depth == 0:
                return "…"
            case Mapping():
                entries = islice(value.items(), _WIDEST)
                return {self.text(str(key)): self.clean_entry(str(key), item, depth - 1) for key, item in entries}
            case Sequence() | AbstractSet():
                rest = len(value) - _WIDEST
                kept = [self.clean(item, depth - 1) for item in islice(value, _WIDEST)]
                return [*kept, f"… ({rest} more)"] if rest > 0 else kept
            case _:
                return self.text(safe_text(value))

    def clean_entry(self, name: str, value: object, depth: int = _DEEPEST) -> object:
        """Like `clean`, for a value that only looks like a secret together with its name."""
        cleaned = self.clean(value, depth)
        suspicious = isinstance(cleaned, str) and _SECRET_NAME.search(name)
        return MASK if suspicious and self.text(f"{name}={cleaned}") != f"{name}={cleaned}" else cleaned

    def _current(self) -> _Index:
        live = self._live()
        index = self._index
        if live is not index.source:
            index = self._index = _indexed(live)
        return index


def safe_text(value: object) -> str:
    """The text of any object; only the type of an object whose text can contain a secret."""
    match value:
        case BrokerError() | CannotStart():
            return str(value)
        case OSError(errno=int() as number):
            return f"<{type(value).__name__}: {os.strerror(number)}>"
        case _ if _prints_secrets(value):
            return f"<{type(value).__name__}>"
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a log call never raises
        return f"<{type(value).__name__}: its text raises {type(error).__name__}>"


def _prints_secrets(value: object) -> bool:
    # Exceptions of other packages quote the values that caused them. Protobuf messages print secrets in spite of
    # `debug_redact`. Their repeated and map fields have types of protobuf.
    kind = type(value)
    foreign = isinstance(value, BaseException) and not isinstance(value, (BrokerError, CannotStart))
    return foreign or hasattr(kind, "DESCRIPTOR") or kind.__module__.startswith("google.")


def _masked(text: str, index: _Index) -> str:
    # Both searches use the original text. An old key can begin with the same characters as a live one. If these were masked
    # first, the rest of the old key would no longer look like a key.
    hits = [at for at in range(len(text) - _GRAM + 1) if hash(text[at : at + _GRAM]) in index.grams] if index.grams else ()
    shapes = ((max(found.start(), *map(found.end, (1, 2))), found.end()) for found in _SHAPES.finditer(text))
    out: list[str] = []
    shown = 0
    for start, end in sorted((*shapes, *_runs(text, hits, index.values.reveal()))):
        if start >= shown and (start > shown or not out):
            out += (text[shown:start], MASK)
        shown = max(shown, end)
    masked = "".join((*out, text[shown:]))
    for value in index.short:
        masked = masked.replace(value.reveal(), MASK)
    return masked


def _runs(text: str, hits: Sequence[int], values: str) -> Iterator[tuple[int, int]]:
    """The spans of the text that are pieces of values. They do not overlap or touch. `hits` are the positions of grams."""
    windows = sorted({max(start, 0) for hit in hits for start in range(hit - _STRIDE + 1, hit + 1)})
    found = [start for start in windows if _is_piece(text[start : start + PIECE], values)]
    while found:
        start = found[0]
        end = start + PIECE
        taken = 0
        for at in found:
            if at > end:
                break
            end, taken = at + PIECE, taken + 1
        yield start, end
        found = found[taken:]


def _is_piece(piece: str, values: str) -> bool:
    return len(piece) == PIECE and _BETWEEN not in piece and piece in values


def _indexed(live: Collection[SecretValue]) -> _Index:
    spelled = {spelling for secret in live for spelling in _spellings(secret.reveal()) if len(spelling) >= _SHORTEST}
    long = sorted(value for value in spelled if len(value) >= PIECE)
    return _Index(
        source=live,
        grams=frozenset(hash(value[at : at + _GRAM]) for value in long for at in range(0, len(value) - _GRAM + 1, _STRIDE)),
        values=SecretValue(_BETWEEN.join(long)),
        short=tuple(SecretValue(value) for value in sorted(spelled) if len(value) < PIECE),
    )


def _spellings(value: str) -> tuple[str, ...]:
    """The value, and its form in `repr`, JSON and URLs."""
    if value.isascii() and value.replace("-", "").replace("_", "").isalnum():
        return (value,)
    return (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe=""))
