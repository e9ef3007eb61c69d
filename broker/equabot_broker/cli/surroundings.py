"""What the command line takes from the process it runs in: the environment and the time. Its only door to either."""

import os
import time
from collections.abc import Mapping


def environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ  # noqa: TID251 - a command is asked for through it, and `exec` hands it on


def now() -> float:
    """Wall clock, seconds since the epoch: a person is told "in 3h", which nobody computes with."""
    return time.time()  # noqa: TID251


async def sleep(seconds: float) -> None:
    """Lets time pass."""
    import asyncio  # noqa: PLC0415

    await asyncio.sleep(seconds)  # noqa: TID251
