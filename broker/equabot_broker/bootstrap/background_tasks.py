"""Tasks that run while a block does."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

from equabot_broker.domain.backoff import delays
from equabot_broker.ports import Clock
from equabot_broker.telemetry.incidents import incident

_AGAIN: Final = {"base": 0.5, "cap": 10.0}
_CALM: Final = 60.0
"""Seconds after which a task that fails is one that worked."""


@asynccontextmanager
async def background_tasks(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs them while the block runs. One that fails takes the block down with it; when the block ends, so do they."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        yield
        for task in tasks:
            task.cancel()


async def keep_running(name: str, run: Callable[[], Coroutine[Any, Any, None]], *, clock: Clock) -> None:
    """Runs a task that should never end, and starts it again after a while where it does: a fault with one profile must not
    stop the work for all others."""
    waits = delays(**_AGAIN, rng=random.random)
    while True:
        began = clock.steady()
        try:
            await run()
        except Exception as error:  # noqa: BLE001 - a port: the broker outlives it
            incident("task", name, error)
        else:
            incident("task", name, RuntimeError("it has ended, although it should run forever"))
        if clock.steady() - began > _CALM:
            waits = delays(**_AGAIN, rng=random.random)
        await clock.sleep(next(waits))
