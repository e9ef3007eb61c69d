"""A broker that serves, for one test."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.engine import Engine
from tests.rpc.serving import Served

Serve = Callable[[Engine], AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """`async with serve(engine) as served`: the loops run, the servers listen."""

    @asynccontextmanager
    async def serve(engine: Engine) -> AsyncIterator[Served]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(engine.running())
            served = Served(engine, tmp_path, stack)
            await served.start()
            yield served

    return serve
