"""Output for users and programs. A terminal gets aligned columns and colours; a pipe gets plain text with tabs between
columns.

No control character from outside reaches a terminal.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TextIO

from equabot_cli.fitting import fitted, shortened, terminal_width, wrapped
from equabot_cli.masking import masked
from equabot_cli.streams import takes_all
from equabot_cli.surroundings import environment

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Style:
    """The style of a text at a terminal, as SGR parameters."""

    PLAIN: Final = ""
    GOOD: Final = "32"
    WARN: Final = "33"
    BAD: Final = "31"
    STRONG: Final = "1"
    FAINT: Final = "2"


_STATE_STYLES: Final = {"ok": Style.GOOD, "static": Style.GOOD, "expiring": Style.WARN}


class Cell(NamedTuple):
    """A text and its style."""

    text: str
    style: str = Style.PLAIN


def state_cell(state: str) -> Cell:
    """The state of a credential in its style."""
    return Cell(state, _STATE_STYLES.get(state, Style.BAD))


def say(text: str = "") -> None:
    """Prints one line on standard output."""
    print(_clean(text))


def complain(text: str) -> None:
    """Prints one line on standard error, after the program's name."""
    fault(f"equabot: {text}")


def fault(text: str) -> None:
    """Prints one line on standard error. Words that look like a credential are not shown, because a user may type a key by
    mistake."""
    with suppress(OSError, ValueError):  # no one can read it
        print(_clean(masked(text)), file=sys.stderr)


def heading(text: str) -> None:
    """Prints a title above a section."""
    print(_paint(Cell(text, Style.STRONG), coloured(sys.stdout)))


def table(rows: Iterable[Sequence[Cell | str]], *, header: Sequence[str] = (), indent: int = 0) -> None:
    """Prints rows in aligned columns, cut to the width of the terminal. A pipe gets whole texts and no header."""
    cells = [_cells(row) for row in rows]
    if not _person(sys.stdout):
        for row in cells:
            columns([cell.text for cell in row])
        return
    if header and cells:
        cells.insert(0, [Cell(name.upper(), Style.FAINT) for name in header])
    widths = column_widths(cells, indent=indent)
    for row in cells:
        aligned(row, widths, indent=indent)


def column_widths(rows: Iterable[Sequence[Cell | str]], *, indent: int = 0) -> list[int]:
    """The widths of the columns of a table that fits the terminal."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(row[i].text) for row in cells if i < len(row)) for i in range(max(map(len, cells), default=0))]
    return fitted(widths, terminal_width() - indent - 2 * (len(widths) - 1))


def aligned(row: Sequence[Cell | str], widths: Sequence[int], *, indent: int = 0) -> None:
    """Prints one row of a table with columns of these widths."""
    cut = [(Cell(shortened(cell.text, width), cell.style), width) for cell, width in zip(_cells(row), widths, strict=False)]
    line([part for cell, width in cut for part in (cell, " " * (width - len(cell.text) + 2))], indent=indent)


def _cells(row: Sequence[Cell | str]) -> list[Cell]:
    cells = (cell if isinstance(cell, Cell) else Cell(cell) for cell in row)
    return [Cell(_clean(cell.text), cell.style) for cell in cells]


def line(cells: Sequence[Cell | str], *, indent: int = 0) -> None:
    """Prints one line of styled texts, with nothing between them."""
    colour = coloured(sys.stdout)
    text = "".join(_paint(cell, colour) for cell in _cells(cells))
    print((" " * indent + text).rstrip(), flush=True)


def paragraph(text: str, *, first: str = "", rest: str = "") -> None:
    """Prints text in lines as wide as the terminal. The first line begins with `first`, the others with `rest`."""
    for part in wrapped(text, first=first, rest=rest):
        say(part)


def columns(texts: Sequence[str]) -> None:
    """Prints one line with tabs between its columns, for programs."""
    print("\t".join(map(_clean, texts)).rstrip(), flush=True)


def for_people() -> bool:
    """Whether standard output is a terminal."""
    return _person(sys.stdout)


def document(value: Mapping[str, Any] | list[dict[str, Any]], *, indent: int | None = 2) -> None:
    """Prints JSON on standard output."""
    print(json.dumps(value, indent=indent, ensure_ascii=not takes_all(sys.stdout)), flush=True)


def report(value: Mapping[str, Any]) -> None:
    """Prints JSON that quotes text of other programs. Nothing in it that looks like a credential is shown."""
    document(_masked_texts(value))


def _masked_texts(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: _masked_texts(inner) for name, inner in value.items()}
    return [_masked_texts(inner) for inner in value] if isinstance(value, list | tuple) else value


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
    """An instant relative to now: `in 3h 12m`, `5m ago`."""
    return f"in {span(instant - now)}" if instant >= now else f"{span(now - instant)} ago"


def coloured(stream: TextIO) -> bool:
    """Whether to use colour: on a terminal that supports it, without NO_COLOR (https://no-color.org)."""
    asked = environment()
    return _person(stream) and not asked.get("NO_COLOR") and asked.get("TERM") != "dumb"


def _person(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _paint(cell: Cell, colour: bool) -> str:  # noqa: FBT001
    return f"\x1b[{cell.style}m{cell.text}\x1b[0m" if colour and cell.style and cell.text else cell.text


def _clean(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)
