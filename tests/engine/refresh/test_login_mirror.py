"""Logins in two places: made equal whenever one of them may have changed, and again when that fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from equabot_broker.ports import StoreFault
from tests.fakes.engine import Engine, profile

LOGIN = "anthropic:claude-cli"


class Mirror:
    """Counts, and fails while it is broken."""

    def __init__(self) -> None:
        self.made_even = 0
        self.broken = ""

    def __call__(self) -> None:
        self.made_even += 1
        if self.broken:
            raise StoreFault(self.broken)


@asynccontextmanager
async def login_mirror(engine: Engine) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.login_mirror.run())
        yield
        task.cancel()


async def until(mirror: Mirror, count: int) -> None:
    async with asyncio.timeout(60):
        while mirror.made_even < count:  # noqa: ASYNC110  (it is a thread that counts)
            await asyncio.sleep(0.001)


async def asleep(engine: Engine) -> None:
    async with asyncio.timeout(60):
        while engine.clock.sleepers == 0:  # noqa: ASYNC110  (it is a thread that is waited for)
            await asyncio.sleep(0.001)


async def test_change_synchronises_both_places() -> None:
    """Of that login, everybody's; others are nobody's business."""
    mirror = Mirror()
    engine = Engine(mirrors={LOGIN: mirror})
    async with login_mirror(engine):
        engine.put(profile(LOGIN, "one"), profile("anthropic:a"))
        await until(mirror, 1)
        engine.put(profile(LOGIN, "one"), profile("anthropic:a", "other"), profile(LOGIN, "own", agent="main"))
        engine.put(profile(LOGIN, "two"), profile("anthropic:a", "other"))
        await until(mirror, 2)
        await engine.clock.elapse(10_000)
    assert mirror.made_even == 2


async def test_failed_synchronisation_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """Until it succeeds; nobody else is held up."""
    mirror = Mirror()
    engine = Engine(mirrors={LOGIN: mirror})
    mirror.broken = "/c.json cannot be written: mend it"
    async with login_mirror(engine):
        engine.put(profile(LOGIN, "one"))
        await until(mirror, 1)
        for tries in (2, 3):
            await asleep(engine)
            engine.clock.advance(31)
            await until(mirror, tries)
        mirror.broken = ""
        await asleep(engine)
        engine.clock.advance(31)
        await until(mirror, 4)
        await asleep(engine)
        await engine.clock.elapse(1000)
    assert mirror.made_even == 4
    assert {record.getMessage().partition(": ")[2] for record in caplog.records} == {"/c.json cannot be written: mend it"}
