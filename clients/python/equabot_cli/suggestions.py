"""The known word that a user probably meant."""

from collections.abc import Iterable
from typing import Final

_LENGTH: Final = 64
_WORDS: Final = 500
_SIMILAR: Final = 0.65


def nearest(written: str, known: Iterable[str]) -> str:
    """The known word that is most similar to the written one; empty if no word is similar."""
    from difflib import get_close_matches  # noqa: PLC0415
    from itertools import islice  # noqa: PLC0415

    near = get_close_matches(written[:_LENGTH], list(islice(known, _WORDS)), n=1, cutoff=_SIMILAR)
    return near[0] if near else ""
