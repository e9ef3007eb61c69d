"""Reads the broker's state from the thread of the metrics server."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

WITHIN: Final = 2.0
"""Seconds that the broker's event loop has to answer. A broker whose loop is blocked must not look alive."""

T = TypeVar("T")


async def read_on(loop: asyncio.AbstractEventLoop, read: Callable[[], T]) -> T:
    """Calls `read` on the broker's event loop, and returns its result. Runs on another loop. Raises TimeoutError."""

    async def call() -> T:
        return read()

    called = asyncio.run_coroutine_threadsafe(call(), loop)
    return await asyncio.wait_for(asyncio.wrap_future(called), WITHIN)
