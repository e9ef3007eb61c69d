"""The steady clock: it never jumps and, where the system can, counts the time that the machine sleeps."""

import functools
import time
from collections.abc import Callable
from typing import Final

steady: Final[Callable[[], float]] = (
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
