"""Reads the broker's state from the thread of the metrics server."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

WITHIN: Final = 2.0
"""Seconds that the broker's event loop has to answer: a broker whose loop does not turn must not look alive."""

T = TypeVar("T")


async def read_on(loop: asyncio.AbstractEventLoop, look: Callable[[], T]) -> T:
    """What `look` returns on the broker's event loop. Runs on another loop. Raises TimeoutError."""

    async def call() -> T:
        return look()

    called = asyncio.run_coroutine_threadsafe(call(), loop)
    return await asyncio.wait_for(asyncio.wrap_future(called), WITHIN)
