"""The variables of a `.env` file, and doubts about its other lines: skipped lines, and lines that name a key."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from equabot_broker.domain.masking import KEY_BEGINNINGS, masked
from equabot_broker.domain.material import SourceFault, Unit
from equabot_broker.files.dotenv import Statement, statements

_DOUBTS_MAX: Final = 20
_LINES_SHOWN: Final = 5
_SPELLED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_LONGEST_NAME: Final = 100
_ASSIGNED: Final = re.compile(r"(?<![A-Za-z0-9_?&])([A-Za-z_][A-Za-z0-9_]*)[ \t]*=", re.ASCII)
# What a terminal or an editor puts on the next line when it wraps a key: mixed letters, or letters and digits.
_PIECE: Final = re.compile(r"(?![A-Z_]+\Z|[a-z_]+\Z)[_./+-]*[A-Za-z0-9][A-Za-z0-9_./+-]*={0,2}", re.ASCII)
# The last piece of a key in base64, which looks like an assignment to a name that no program uses.
_PADDED: Final = re.compile(r"[0-9][A-Za-z0-9]*={1,2}|(?=[A-Z]*[a-z0-9])(?=[a-z]*[A-Z0-9])[A-Za-z0-9]+==")
_BEGINS: Final = re.compile(KEY_BEGINNINGS)

Wants = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Variables:
    """`values` by name, as written and without interpolation. The last of equal names is used.

    `doubts` follow the name of the file in a message, and hold no byte of a value. `bare` are the names without `=` that would
    make a profile.
    """

    values: dict[str, str] = field(repr=False)
    doubts: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()


def parse_dotenv(raw: bytes, *, shown: object, wants: Wants = lambda _: False) -> Variables:
    """The variables of a `.env` file. `wants` is whether a name may make a profile. A line with a similar name is a doubt.

    A value without quotes that continues on the next line keeps that line. So hygiene refuses it, and half a key is never
    served. Raises Unreadable for a file that is too large or has an unknown encoding.
    """
    found = statements(raw, shown=shown)
    values = {one.name: one.value + _wrapped(found, at) for at, one in enumerate(found) if one.name}
    bare = (name for one in found if one.sound and not one.name for name in _alone(one.written, wants) if name not in values)
    return Variables(values, tuple(islice(_doubts(found, values, wants), _DOUBTS_MAX)), tuple(islice(bare, _DOUBTS_MAX)))


def with_doubts(unit: Unit, doubts: Sequence[str], *, shown: object, source: str) -> Unit:
    """The unit with the doubts about its `.env` as faults. They are errors: such a line may hold a key."""
    return replace(unit, faults=(*unit.faults, *(SourceFault(source, f"{shown} {doubt}") for doubt in doubts)))


def _wrapped(found: Sequence[Statement], at: int) -> str:
    """The lines on which a key seems to continue, each after a line end. A line that begins like a key is a key of its own."""
    if found[at].quoted or not found[at].value:
        return ""
    pieces = ""
    for following in map(found.__getitem__, range(at + 1, len(found))):
        bare = following.written.partition("#")[0].strip()
        if (following.name and not _PADDED.fullmatch(bare)) or not _PIECE.fullmatch(bare) or _BEGINS.match(bare):
            break
        pieces += f"\n{bare}"
    return pieces


def _doubts(found: Sequence[Statement], values: dict[str, str], wants: Wants) -> Iterator[str]:
    skipped = [one for one in found if not one.sound]
    if skipped:
        yield _skipped([one.number for one in skipped])
    for one in skipped:
        if named := _named(one.written, wants):
            yield f"line {one.number} names {masked(named)} but does not assign it: write {masked(named)}=value"
    for one in found:
        if one.name and (named := _swallowed(one.value, values, wants)):
            yield f"line {one.number} has {masked(named)}= inside another value: put it on its own line, outside quotes"
        elif one.name.endswith("_FILE") and wants(one.name.removesuffix("_FILE")):
            yield f"line {one.number} sets {masked(one.name)}, which is only read from the broker's environment: set it there"
        elif one.name and (meant := _meant(one.name, wants)) and not values.get(meant):
            yield f"line {one.number} sets {masked(one.name)}, which is not read: write {masked(meant)}"


def _skipped(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_LINES_SHOWN]))
    if len(numbers) > _LINES_SHOWN:
        shown += f" and {len(numbers) - _LINES_SHOWN} more"
    what = "line {} is skipped, because it is not an assignment"
    if len(numbers) > 1:
        what = "lines {} are skipped, because they are not assignments"
    return f"{what.format(shown)}: write NAME=value, or remove the text"


def _named(line: str, wants: Wants) -> str:
    """The first name of a credential in the line: after `$env:`, `set -x`, `setx` or `-e`, or in JSON."""
    words = (word[0] for word in _SPELLED.finditer(line) if len(word[0]) <= _LONGEST_NAME)
    return next((word for word in words if wants(word)), "")


def _alone(line: str, wants: Wants) -> Iterator[str]:
    """The names in a valid line without an assignment: `NAME`, `export NAME`. Names in a comment are ignored."""
    written = line.partition("#")[0]
    return (word[0] for word in _SPELLED.finditer(written) if len(word[0]) <= _LONGEST_NAME and wants(word[0]))


def _swallowed(value: str, values: dict[str, str], wants: Wants) -> str:
    """The first name that an assignment inside a value would set, and that no other line sets."""
    names = (found[1] for found in _ASSIGNED.finditer(value) if len(found[1]) <= _LONGEST_NAME)
    return next((name for name in names if wants(name) and name not in values), "")


def _meant(name: str, wants: Wants) -> str:
    """The name that is read, if this is another spelling of it."""
    meant = re.sub(r"[.-]", "_", name.upper())
    return meant if len(name) <= _LONGEST_NAME and meant != name and not wants(name) and wants(meant) else ""
