"""Delays between attempts: exponential, with jitter."""

import re
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Final


def delays(*, base: float, cap: float, rng: Callable[[], float]) -> Iterator[float]:
    """Yields the seconds before the second attempt, the third, and so on, without end.

    Delay n lies between half and the whole of `base * 2**n`, and is never above `cap`. `rng` returns numbers in [0, 1) and
    decides the value in this range. Raises ValueError unless 0 < base <= cap.
    """
    if not 0 < base <= cap:
        raise ValueError(f"a backoff needs 0 < base <= cap, not {base!r} and {cap!r}")
    return _delays(base, cap, rng)


def _delays(ceiling: float, cap: float, rng: Callable[[], float]) -> Iterator[float]:
    while True:
        # The fixed half gives an overloaded server time; the random half spreads the attempts of many clients.
        yield ceiling * (0.5 + 0.5 * rng())
        ceiling = min(ceiling * 2, cap)


_LONGEST_WAIT: Final = 3600.0
_SECONDS: Final = re.compile(r"[0-9]{1,11}(?:\.[0-9]{0,9})?", re.ASCII)
"""The standard has whole seconds; some vendors send decimals."""
_TOGETHER: Final = 8
"""The number of joined headers that are read: a proxy in front of a vendor may add its own."""


def seconds_to_wait(retry_after: str, *, now: float, longest: float = _LONGEST_WAIT) -> float | None:
    """The seconds of a `Retry-After` header, a number or a date, at most `longest`. None for a malformed value."""
    text = retry_after.strip()
    if all(map(_SECONDS.fullmatch, numbers := re.split(r", *", text)[:_TOGETHER])):
        return min(max(map(float, numbers)), longest)
    try:
        wait = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return min(max(wait, 0.0), longest)
