"""Storing soon: before the answer where there is time for it, and together under load."""

import asyncio

from equabot_broker.engine.leases.write_behind import WriteBehind
from tests.fakes.state import MemoryStateStore


async def flushed(store: MemoryStateStore, times: int) -> None:
    async with asyncio.timeout(60):
        while store.flushes < times:  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0)


async def test_single_change_is_flushed_at_once() -> None:
    """Inside the call: whoever is answered may rely on it."""
    store = MemoryStateStore()
    WriteBehind(store).soon()
    assert store.flushes == 1


async def test_changes_under_load_share_a_transaction() -> None:
    """What comes within milliseconds of the last flush waits for the next, and none is forgotten."""
    store = MemoryStateStore()
    write_behind = WriteBehind(store)
    write_behind.soon()
    await flushed(store, 1)
    for n in range(1000):
        store.put_order(("main", str(n)), ("p:a",))
        write_behind.soon()
    await flushed(store, 2)
    assert len(store.load().orders) == 1000
    assert store.flushes == 2


async def test_failed_flush_is_repeated_with_the_next_change() -> None:
    """What it kept is written then."""
    store = MemoryStateStore()
    write_behind = WriteBehind(store)
    store.broken = "disk full"
    store.put_order(("main", "p"), ("p:a",))
    write_behind.soon()
    await asyncio.sleep(0)
    store.broken = ""
    write_behind.soon()
    await flushed(store, 1)
    assert store.load().orders == {("main", "p"): ("p:a",)}
