"""What people and pipes are shown. A terminal gets aligned columns and colour, anything else plain text, a column a tab.

Nothing that comes from outside reaches a terminal with control characters in it.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TextIO

from equabot_broker.cli.streams import takes_all
from equabot_broker.cli.surroundings import environment

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Style:
    """How a text looks at a terminal: SGR parameters."""

    PLAIN: Final = ""
    GOOD: Final = "32"
    WARN: Final = "33"
    BAD: Final = "31"
    STRONG: Final = "1"
    FAINT: Final = "2"


_STATE_STYLES: Final = {"ok": Style.GOOD, "static": Style.GOOD, "expiring": Style.WARN}


class Cell(NamedTuple):
    """A text and how it looks."""

    text: str
    style: str = Style.PLAIN


def state_cell(state: str) -> Cell:
    """A credential's state."""
    return Cell(state, _STATE_STYLES.get(state, Style.BAD))


def say(text: str = "") -> None:
    """One line on standard output."""
    print(_clean(text))


def complain(text: str) -> None:
    """One line on standard error, under the program's name."""
    fault(f"equabot: {text}")


def fault(text: str) -> None:
    """One line on standard error. An argument that it quotes may be a key in the wrong place."""
    from equabot_broker.telemetry.redaction import Redactor  # noqa: PLC0415

    with suppress(OSError, ValueError):  # nobody listens
        print(_clean(Redactor().text(text)), file=sys.stderr)


def heading(text: str) -> None:
    """A line above what belongs together."""
    print(_paint(Cell(text, Style.STRONG), coloured(sys.stdout)))


def table(rows: Iterable[Sequence[Cell | str]], *, header: Sequence[str] = (), indent: int = 0) -> None:
    """Rows in columns. The header is for people: a pipe does not get it."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    cells = [[Cell(_clean(cell.text), cell.style) for cell in row] for row in cells]
    if not _person(sys.stdout):
        for row in cells:
            columns([cell.text for cell in row])
        return
    if header and cells:
        cells.insert(0, [Cell(name.upper(), Style.FAINT) for name in header])
    widths = [max(len(row[i].text) for row in cells if i < len(row)) for i in range(max(map(len, cells), default=0))]
    colour = coloured(sys.stdout)
    for row in cells:
        padded = (_paint(cell, colour) + " " * (width - len(cell.text)) for cell, width in zip(row, widths, strict=False))
        print((" " * indent + "  ".join(padded)).rstrip(), flush=True)


def columns(texts: Sequence[str]) -> None:
    """One line, its columns parted by tabs, for programs."""
    print("\t".join(map(_clean, texts)).rstrip(), flush=True)


def for_people() -> bool:
    """Whether standard output is a terminal."""
    return _person(sys.stdout)


def document(value: Mapping[str, Any] | list[dict[str, Any]], *, indent: int | None = 2) -> None:
    """JSON on standard output, for programs."""
    print(json.dumps(value, indent=indent, ensure_ascii=not takes_all(sys.stdout)), flush=True)


def report(value: Mapping[str, Any]) -> None:
    """JSON on standard output that quotes what others wrote: nothing in it that looks like a credential is shown."""
    from equabot_broker.telemetry.redaction import Redactor  # noqa: PLC0415

    document(_redacted(value, Redactor().text))


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: _redacted(inner, redact) for name, inner in value.items()}
    return [_redacted(inner, redact) for inner in value] if isinstance(value, list | tuple) else value


def span(seconds: float) -> str:
    """A duration in its largest two units, rounded to the smaller one: `3h 12m`, `45s`, `8h` for 7 h 59 min 59.6 s."""
    whole = max(round(seconds), 0)
    for size, small in ((3600, 60), (86400, 3600)):
        if whole >= size:
            whole = round(whole / small) * small
    counts = []
    for size, unit in _UNITS:
        counts.append((whole // size, unit))
        whole %= size
    first = next((i for i, (count, _) in enumerate(counts) if count), len(counts) - 1)
    return " ".join(f"{count}{unit}" for i, (count, unit) in enumerate(counts[first : first + 2]) if count or not i)


def relative(instant: float, now: float) -> str:
    """An instant for a person: `in 3h 12m`, `5m ago`."""
    return f"in {span(instant - now)}" if instant >= now else f"{span(now - instant)} ago"


def rfc3339(instant: float) -> str:
    """Seconds since the epoch, for programs: `2026-11-22T17:00:00.250Z`."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def coloured(stream: TextIO) -> bool:
    """Whether colour is wanted there: a terminal that knows it, and no NO_COLOR (https://no-color.org)."""
    asked = environment()
    return _person(stream) and not asked.get("NO_COLOR") and asked.get("TERM") != "dumb"


def _person(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _paint(cell: Cell, colour: bool) -> str:  # noqa: FBT001
    return f"\x1b[{cell.style}m{cell.text}\x1b[0m" if colour and cell.style and cell.text else cell.text


def _clean(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)
