"""The environment and the time of the process. Commands get both from here only."""

import os
import time
from collections.abc import Mapping


def environment() -> Mapping[str, str]:
    """The environment of this process."""
    return os.environ


def now() -> float:
    """The wall clock, in seconds since the epoch. It is for display only."""
    return time.time()


async def sleep(seconds: float) -> None:
    """Waits for some seconds."""
    import asyncio  # noqa: PLC0415

    await asyncio.sleep(seconds)
