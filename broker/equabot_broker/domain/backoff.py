"""How long to wait between tries: longer each time, and never in step with anyone else."""

import re
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Final


def delays(*, base: float, cap: float, rng: Callable[[], float]) -> Iterator[float]:
    """Seconds to wait before the second try, the third, and so on, without end.

    The n-th lies between half and the whole of `base * 2**n`, never above `cap`; where in between says `rng`, which returns
    numbers in [0, 1). Raises ValueError unless 0 < base <= cap.
    """
    if not 0 < base <= cap:
        raise ValueError(f"a backoff needs 0 < base <= cap, not {base!r} and {cap!r}")
    return _delays(base, cap, rng)


def _delays(ceiling: float, cap: float, rng: Callable[[], float]) -> Iterator[float]:
    while True:
        # Half is certain, so that a struggling peer is always left alone for a while; half is chance, against stampedes.
        yield ceiling * (0.5 + 0.5 * rng())
        ceiling = min(ceiling * 2, cap)


_LONGEST_WAIT: Final = 3600.0


_SECONDS: Final = re.compile(r"[0-9]{1,11}(?:\.[0-9]{0,9})?", re.ASCII)
"""A wait: by the standard a whole number, and from some vendors one with decimals."""


_TOGETHER: Final = 8
"""Headers of one name that are looked at: a proxy in front of a vendor may add its own."""


def seconds_to_wait(retry_after: str, *, now: float, longest: float = _LONGEST_WAIT) -> float | None:
    """The seconds a `Retry-After` header asks for, an hour at most: a number, or a date. None: it asks for nothing sensible."""
    text = retry_after.strip()
    if all(map(_SECONDS.fullmatch, numbers := re.split(r", *", text)[:_TOGETHER])):
        return min(max(map(float, numbers)), longest)
    try:
        wait = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(wait, 0.0), longest)
