"""What every StateStore promises: the one on disk, and the one that tests use in its stead."""

from collections.abc import Callable
from pathlib import Path

import pytest

from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.ends import FirstSeen
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.suspension import Suspension
from equabot_broker.ports import StateStore, StoredState, StoredVersion
from equabot_broker.storage.state import SqliteStateStore
from tests.fakes.clock import FakeClock
from tests.fakes.state import MemoryStateStore

LEASE = Lease("l1", "main", "talk", "anthropic", "anthropic:a", True, Delivery.RAW, 900.0, 5000.0, 5900.0, 8600.0)
PIN = (("main", "talk", "anthropic"), ("anthropic:a", True))
ORDER = (("main", "anthropic"), ("anthropic:b", "anthropic:a"))
USAGE = (("", "anthropic:a"), Usage(last_used=1_800_000_000.0, error_count=2, failure_counts={"timeout": 2}))
VERSION = (("", "anthropic:a"), StoredVersion(version=7, digest=b"0123456789abcdef", seen=FirstSeen(5.0, b"e" * 16)))
SUSPENSION = ("coder", Suspension(since=1_800_000_000.5, reason="odd requests", tokens=(b"t" * 32, b"u" * 32)))

Opener = Callable[[], StateStore]


@pytest.fixture(params=["memory", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Returns the store as a process would find it: a second call is the next process."""
    if request.param == "memory":
        memory = MemoryStateStore()
        return lambda: memory
    clock = FakeClock()
    return lambda: SqliteStateStore(tmp_path / "state.db", clock=clock, boot_id=lambda: "this-boot")


def fill(store: StateStore) -> None:
    store.put_lease(LEASE.id, LEASE)
    store.put_pin(*PIN)
    store.put_order(*ORDER)
    store.put_usage(*USAGE)
    store.put_version(*VERSION)
    store.put_suspension(*SUSPENSION)


def test_new_store_is_empty_and_has_no_fault(opened: Opener) -> None:
    """A new store holds nothing and complains of nothing."""
    store = opened()
    assert store.load() == StoredState()
    assert store.fault == ""
    store.close()


def test_put_state_is_read_by_the_next_process(opened: Opener) -> None:
    """A flush is enough: the store need not be closed."""
    first = opened()
    first.load()
    fill(first)
    first.flush()
    key = first.digest_key
    second = opened()
    assert second.load() == StoredState(
        leases=(LEASE,), pins=dict([PIN]), orders=dict([ORDER]), usage=dict([USAGE]), versions=dict([VERSION]),
        suspensions=dict([SUSPENSION]),
    )  # fmt: skip
    assert second.digest_key == key
    first.close()
    second.close()


def test_last_put_wins(opened: Opener) -> None:
    """Puts of one key before a flush come to the last of them; deleting what is not there is no error."""
    store = opened()
    store.load()
    fill(store)
    store.flush()
    store.put_lease(LEASE.id, None)
    store.put_lease("never-there", None)
    store.put_pin(PIN[0], None)
    store.put_order(ORDER[0], None)
    store.put_order(ORDER[0], ("anthropic:c",))
    store.put_usage(USAGE[0], None)
    store.put_version(VERSION[0], None)
    store.put_suspension(SUSPENSION[0], None)
    store.close()
    after = opened()
    assert after.load() == StoredState(orders={ORDER[0]: ("anthropic:c",)})
    after.close()


async def test_synced_state_is_read_by_the_next_process(opened: Opener) -> None:
    """S11: a sync writes what was put, and says that it is on the disk."""
    store = opened()
    store.load()
    store.put_suspension(*SUSPENSION)
    assert await store.sync() == ""
    assert opened().load().suspensions == dict([SUSPENSION])
    store.close()
