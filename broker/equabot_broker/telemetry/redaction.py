"""Takes secrets out of text on its way to a log: what looks like a key, and every value that is live now.

A last net, not the first: nothing should put a secret into a log to begin with. Pieces of a live value count as the value.
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
"""So many characters of a live value in a row are never shown."""

_SHORTEST: Final = 4
"""Values shorter than this are not looked for: they would blot out half of every line."""
_GRAM: Final = 5
_STRIDE: Final = PIECE - _GRAM + 1
_BETWEEN: Final = "\0"
_LONGEST: Final = 16_384
"""Characters of a text that are looked at; the rest is cut off."""
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

_TELLING: Final = re.compile(r"(?i:key|token|secret|password|passwd|credential|authorization)$")


def _nothing() -> Collection[SecretValue]:
    return ()


@dataclass(frozen=True, slots=True)
class _Index:
    """Where live values may be in a text, and whether they are. `grams` are hashes of every fourth run of five characters,
    of which each piece of eight holds one whole; `values` are all values, each on a line of its own.
    """

    source: Collection[SecretValue]
    grams: frozenset[int]
    values: SecretValue
    short: tuple[SecretValue, ...]


class Redactor:
    """Masks secrets. `live` gives the values of now; the same object for as long as nothing changes, since another one is
    indexed anew. May be called from any thread."""

    def __init__(self, live: Callable[[], Collection[SecretValue]] = _nothing) -> None:
        self._live = live
        self._index = _Index((), frozenset(), SecretValue(""), ())

    def watch(self, live: Callable[[], Collection[SecretValue]]) -> None:
        """Looks there for live values from now on."""
        self._live = live

    def text(self, text: str) -> str:
        """The text without secrets, at most 16 Ki characters of it."""
        if len(text) > _LONGEST:
            text = f"{text[:_LONGEST]}… ({len(text) - _LONGEST} more characters)"
        return _masked(text, self._current())

    def clean(self, value: object, depth: int = _DEEPEST) -> object:
        """The value as something that JSON knows, without secrets: containers keep their form, and of what prints itself in
        ways of its own (exceptions, messages, bytes) only the type is left."""
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
                return told(value)
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
                return self.text(told(value))

    def clean_entry(self, name: str, value: object, depth: int = _DEEPEST) -> object:
        """Like `clean`, for a value that may look like a secret only together with its name."""
        cleaned = self.clean(value, depth)
        telling = isinstance(cleaned, str) and _TELLING.search(name)
        return MASK if telling and self.text(f"{name}={cleaned}") != f"{name}={cleaned}" else cleaned

    def _current(self) -> _Index:
        live = self._live()
        index = self._index
        if live is not index.source:
            index = self._index = _indexed(live)
        return index


def told(value: object) -> str:
    """What may be said of an object of any kind; of what prints all that it holds, only the type."""
    match value:
        case BrokerError() | CannotStart():
            return str(value)
        case OSError(errno=int() as number):
            return f"<{type(value).__name__}: {os.strerror(number)}>"
        case _ if _prints_secrets(value):
            return f"<{type(value).__name__}>"
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a log line comes out whatever its arguments do
        return f"<{type(value).__name__}, which does not print: {type(error).__name__}>"


def _prints_secrets(value: object) -> bool:
    # Foreign exceptions quote what they choked on; protobuf messages print secrets in spite of `debug_redact`, and their
    # repeated and map fields are containers of protobuf's own.
    kind = type(value)
    foreign = isinstance(value, BaseException) and not isinstance(value, (BrokerError, CannotStart))
    return foreign or hasattr(kind, "DESCRIPTOR") or kind.__module__.startswith("google.")


def _masked(text: str, index: _Index) -> str:
    # Both are looked for in the text as it is: what a key that is no longer live has in common with one that is, its beginning,
    # tells that the rest of it is one.
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
    """Where pieces of values stand in the text, as spans that do not touch. `hits` are where a gram does."""
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
    """The value as it stands, and as `repr`, JSON and URLs would write it."""
    if value.isascii() and value.replace("-", "").replace("_", "").isalnum():
        return (value,)
    return (value, repr(value)[1:-1], json.dumps(value)[1:-1], quote(value, safe=""))
