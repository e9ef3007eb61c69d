"""State in SQLite: what is put comes back, whatever happens to the process, the machine, the disk or the file."""

import asyncio
import logging
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.cooldowns import ModelCooldown, Usage
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.domain.suspension import Suspension
from equabot_broker.ports import StateStore, StoredState, StoredVersion
from equabot_broker.storage._state_file import open_for_reading
from equabot_broker.storage._state_tables import MIGRATIONS, Moment, read_state
from equabot_broker.storage.read_only_state import ReadOnlyState
from equabot_broker.storage.state import SqliteStateStore, StateTooNew, boot_id
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=1_800_000_000.0, steady=1000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


Opener = Callable[..., SqliteStateStore]


@pytest.fixture
def opened(path: Path, clock: FakeClock) -> Iterator[Opener]:
    """Opens the store at `path`, in the run of the machine that `boot` names; closes every one at the end."""
    stores = []

    def opened(boot: str = "this-boot", at: Path = path, now: FakeClock = clock) -> SqliteStateStore:
        stores.append(SqliteStateStore(at, clock=now, boot_id=lambda: boot))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


def lease(name: str = "l1", *, issued: float = 1000.0, life: float = 900.0) -> Lease:
    instants = (issued, issued + life, issued + 3600.0)
    return Lease(name, "main", "talk", "anthropic", "anthropic:env", True, Delivery.RAW, 900.0, *instants)


def put(store: SqliteStateStore, *leases: Lease) -> None:
    for one in leases:
        store.put_lease(one.id, one)
    store.flush()


def ids(state: StoredState) -> set[str]:
    return {found.id for found in state.leases}


# -- what is put comes back --------------------------------------------------------------------------------------------


def test_implements_the_state_store_port(path: Path, clock: FakeClock) -> None:
    """SqliteStateStore fulfils ports.StateStore; and constructing it touches nothing."""
    store: StateStore = SqliteStateStore(path, clock=clock)
    assert not path.parent.exists()
    store.close()
    assert not path.parent.exists()


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
instants = st.floats(min_value=0, max_value=1e10)


@given(
    one=st.builds(
        Lease, words, words, words, words, words, st.booleans(), st.sampled_from(Delivery), instants, instants,
        st.floats(min_value=1001, max_value=1e10), instants, token=st.binary(max_size=32), model=words,
    ),
    pin=st.tuples(words, st.booleans()),
    order=st.lists(words).map(tuple),
    usage=st.builds(
        Usage, last_used=instants, cooldown_until=instants, disabled_until=instants, disabled_reason=words,
        error_count=st.integers(0, 1000), failure_counts=st.dictionaries(words, st.integers(0, 99), max_size=3),
        last_failure=instants, rejected=words, rejected_version=st.integers(0, 2**62),
        rejected_until=instants, rejections=st.integers(0, 99), version=st.integers(0, 2**62),
        models=st.dictionaries(words, st.builds(ModelCooldown, instants, st.integers(0, 99), instants), max_size=3),
    ),
    version=st.builds(StoredVersion, version=st.integers(0, 2**62), digest=st.binary(min_size=16, max_size=16)),
    names=st.tuples(words, words, words),
)  # fmt: skip
def test_state_is_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, *,
    one: Lease, pin: tuple[str, bool], order: tuple[str, ...], usage: Usage, version: StoredVersion, names: tuple[str, str, str]
) -> None:  # fmt: skip
    """A restart in the same run of the machine changes no byte of the state, whatever names people choose."""
    path, clock = tmp_path_factory.mktemp("state") / "state.db", FakeClock(steady=1000.0)
    first = SqliteStateStore(path, clock=clock, boot_id=lambda: "boot")
    assert first.load() == StoredState()
    first.put_lease(one.id, one)
    first.put_pin(names, pin)
    first.put_order(names[:2], order)
    first.put_usage(names[:2], usage)
    first.put_version(names[:2], version)
    first.close()
    again = SqliteStateStore(path, clock=clock, boot_id=lambda: "boot")
    state = again.load()
    assert state.usage[names[:2]].version == usage.version
    assert state == StoredState(
        leases=(one,),
        pins={names: pin},
        orders={names[:2]: order},
        usage={names[:2]: usage},
        versions={names[:2]: version},
    )
    again.close()


def test_last_put_wins_and_none_deletes(opened: Opener) -> None:
    """Puts are by key, inside one flush as across flushes."""
    store = opened()
    put(store, lease("kept"), lease("gone"), lease("never"))
    later = replace(lease("kept"), expires_at=2500.0)
    store.put_lease("kept", later)
    store.put_lease("gone", None)
    store.put_lease("unknown", None)
    store.put_pin(("main", "talk", "anthropic"), ("anthropic:a", False))
    store.put_pin(("main", "talk", "anthropic"), ("anthropic:b", True))
    store.put_order(("main", "anthropic"), ("anthropic:b",))
    store.put_order(("main", "anthropic"), None)
    store.put_lease("never", None)
    store.close()
    state = opened().load()
    assert state == StoredState(leases=(later,), pins={("main", "talk", "anthropic"): ("anthropic:b", True)})


def test_leases_come_back_oldest_first(opened: Opener) -> None:
    """The order of issue outlives the process, though ids are random."""
    put(opened(), *(lease(f"{n * 7919 % 10}", issued=900.0 + n) for n in range(10)))
    assert [found.issued_at for found in opened().load().leases] == [900.0 + n for n in range(10)]


def test_flush_writes_all_puts_in_one_transaction(opened: Opener, path: Path) -> None:
    """Another reader sees nothing of a flush, or all of it."""
    store = opened()
    store.load()
    with closing(sqlite3.connect(path)) as other:
        store.put_lease("a", lease("a"))
        store.put_lease("b", lease("b"))
        store.put_version(("", "anthropic:env"), StoredVersion(version=1, digest=b"d" * 16))
        count = "SELECT (SELECT count(*) FROM leases) + (SELECT count(*) FROM versions)"
        assert other.execute(count).fetchone() == (0,)
        store.flush()
        assert other.execute(count).fetchone() == (3,)


# -- time --------------------------------------------------------------------------------------------------------------


def test_after_a_reboot_leases_end_when_the_wall_clock_says(opened: Opener) -> None:
    """Steady time starts anew with the machine: what is left of a lease is converted, instant by instant."""
    put(opened(), lease(issued=1000.0, life=900.0))
    rebooted = FakeClock(now=1_800_000_300.0, steady=7.0)
    assert opened("other-boot", now=rebooted).load().leases == (
        replace(lease(), issued_at=-293.0, expires_at=607.0, max_expires_at=3307.0),
    )


def test_same_boot_ignores_the_wall_clock(opened: Opener, clock: FakeClock) -> None:
    """An hour's jump of the wall clock, either way, moves no lease across a restart of the broker."""
    put(opened(), lease())
    for jump in (3600.0, -7200.0):
        clock.jump_wall(jump)
        assert opened().load().leases == (lease(),)


def test_without_a_boot_id_the_wall_clock_decides(opened: Opener) -> None:
    """Where the system does not name its runs, no run is like another."""
    put(opened(""), lease())
    later = FakeClock(now=1_800_000_100.0, steady=6000.0)
    assert opened("", now=later).load().leases[0].expires_at == 6800.0


def test_a_clock_that_was_set_back_lengthens_no_lease(opened: Opener) -> None:
    """After a reboot into 1970 a lease still has no more than its whole life before it."""
    put(opened(), lease(life=900.0))
    assert opened("other-boot", now=FakeClock(now=0.0, steady=5.0)).load().leases[0].expires_at == 905.0


@pytest.mark.parametrize("boot", ["this-boot", "other-boot"])
def test_expired_leases_are_dropped_and_forgotten(opened: Opener, clock: FakeClock, path: Path, boot: str) -> None:
    """They are neither loaded nor kept in the file."""
    first = opened()
    put(first, lease("short", life=60.0), lease("long"))
    first.close()
    clock.advance(60.0)
    store = opened(boot)
    assert ids(store.load()) == {"long"}
    store.flush()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT id FROM leases").fetchall() == [("long",)]


def test_the_system_names_its_run() -> None:
    """The kernel's boot id is stable within a run; a system without one gets the empty name."""
    assert boot_id() == boot_id()
    assert len(boot_id()) == 36
    assert boot_id(Path("/nonexistent")) == ""


# -- the file ----------------------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_is_for_its_owner_alone(opened: Opener, path: Path) -> None:
    """0600 with its companions, in a directory that is made 0700; whatever the umask."""
    before = os.umask(0)
    try:
        put(opened(), lease())
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert {found.name: mode(found) for found in path.parent.iterdir()} == {
        "state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600,
    }  # fmt: skip


def test_an_existing_directory_stays_as_it_is_and_a_wide_file_is_narrowed(opened: Opener, path: Path) -> None:
    """The directory belongs to somebody else; the file is ours."""
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o644)
    put(opened(), lease())
    assert (mode(path.parent), mode(path)) == (0o755, 0o600)


def test_the_digest_key_stays_with_the_store(opened: Opener) -> None:
    """32 random bytes, equal after a restart, different in another store, and there without `load`."""
    first = opened()
    key = first.digest_key
    first.close()
    assert len(key) == 32
    assert opened().digest_key == key
    other = opened(at=first._path.with_name("other.db"))
    assert other.digest_key != key


def test_a_newer_state_is_refused_and_not_touched(opened: Opener, path: Path) -> None:
    """A downgrade says what to do and destroys nothing."""
    opened().open()
    opened().close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    closed = opened()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(StateTooNew, match=r"newer broker .* run the newer broker, or move the file away"):
            closed.load()
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*corrupt*"))


FIRST = Path(__file__).with_name("state-1.sql")
"""A database as the first version of this schema wrote it, with a lease, a pin, an order, usage and a version in it."""


def from_the_first_version(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(FIRST.read_text())


def test_a_store_of_the_first_version_is_read_and_brought_up_to_date(opened: Opener, path: Path) -> None:
    """Nothing in it is lost, its leases are raw ones, and brokered ones can stand beside them."""
    from_the_first_version(path)
    store = opened()
    state = store.load()
    assert [(one.id, one.delivery, one.token) for one in state.leases] == [("l1", Delivery.RAW, b"")]
    assert (dict(state.pins), dict(state.orders)) == (
        {("main", "talk", "anthropic"): ("anthropic:env", True)},
        {("main", "anthropic"): ("anthropic:env", "anthropic:b")},
    )
    assert state.usage[("", "anthropic:env")].error_count == 2
    assert state.versions[("", "anthropic:env")].version == 7
    token = replace(lease("l2"), delivery=Delivery.BROKERED, token=b"t" * 32)
    put(store, token)
    store.close()
    assert {one.id: one.token for one in opened().load().leases} == {"l1": b"", "l2": b"t" * 32}


def test_a_store_of_the_first_version_can_be_read_where_it_cannot_be_written(path: Path) -> None:
    """A full disk does not end the leases of those who come with a newer broker."""
    from_the_first_version(path)
    with closing(open_for_reading(path)) as db:
        state, expired = read_state(db, Moment(wall=1_800_000_000.0, steady=1000.0, boot="this-boot"))
    assert (ids(state), expired) == ({"l1"}, [])


def test_rejection_of_an_older_broker_is_tried_again(opened: Opener, path: Path) -> None:
    """S4: a minute after it was refused, as if it had been refused now; also where the database can only be read."""
    from_the_first_version(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("INSERT INTO usage VALUES ('', 'anthropic:b', 0, 0, 0, '', 1, '{}', 1800000000.0, 'refused (401)', 7)")
    with closing(open_for_reading(path)) as db:
        looked, _ = read_state(db, Moment(wall=1_800_000_000.0, steady=1000.0, boot="this-boot"))
    for state in (looked, opened().load()):
        rejected, other = (state.usage[("", profile)] for profile in ("anthropic:b", "anthropic:env"))
        assert (rejected.rejected_until, rejected.rejections) == (1_800_000_060.0, 1)
        assert (other.rejected_until, other.rejections) == (0.0, 0)


def test_read_only_state_reads_the_first_version(path: Path, clock: FakeClock) -> None:
    """And leaves it as it is."""
    from_the_first_version(path)
    before = path.read_bytes()
    assert ReadOnlyState(path, clock=clock).load().pins == {("main", "talk", "anthropic"): ("anthropic:env", True)}
    assert path.read_bytes() == before


SUSPENSION = Suspension(since=1_800_000_000.0, reason="odd requests", tokens=(b"t" * 32,))


async def suspend(store: SqliteStateStore, agent: str = "coder") -> str:
    store.put_suspension(agent, SUSPENSION)
    return await store.sync()


@pytest.mark.parametrize("version", [1, 2])
async def test_an_older_store_takes_a_suspension(opened: Opener, path: Path, version: int) -> None:
    """S11: a broker that is updated can suspend at once, and loses nothing that the older one stored."""
    from_the_first_version(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for number, step in enumerate(MIGRATIONS[1:version], start=2):
            for statement in step:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
    store = opened()
    assert store.load().suspensions == {}
    assert await suspend(store) == ""
    state = opened().load()
    assert (dict(state.suspensions), ids(state)) == ({"coder": SUSPENSION}, {"l1"})


async def test_read_only_state_has_the_suspensions(opened: Opener, path: Path, clock: FakeClock) -> None:
    """S11: `doctor` without a broker says so too."""
    store = opened()
    await suspend(store)
    store.close()
    assert ReadOnlyState(path, clock=clock).load().suspensions == {"coder": SUSPENSION}


def test_an_empty_file_is_an_empty_store(opened: Opener, path: Path) -> None:
    """What a crash right after creation leaves."""
    path.parent.mkdir()
    path.touch()
    put(opened(), lease())
    assert ids(opened().load()) == {"l1"}


# -- corruption --------------------------------------------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(50_000))


def few_bytes(path: Path) -> None:
    path.write_bytes(b"not a database")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def wrong_magic(path: Path) -> None:
    path.write_bytes(b"SQLite format 9\0" + path.read_bytes()[16:])


def page_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    path.write_bytes(content)


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE cookies (name TEXT)")
        db.execute("PRAGMA user_version = 99")


def changed(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute(statement)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        garbage, few_bytes, truncated, wrong_magic, page_overwritten, foreign,
        pytest.param(changed("DROP TABLE leases"), id="table-missing"),
        pytest.param(changed("ALTER TABLE pins RENAME COLUMN strict TO lax"), id="column-missing"),
        pytest.param(changed("UPDATE leases SET delivery = 'pigeon'"), id="strange-word"),
        pytest.param(changed("UPDATE leases SET expires_at = 'soon'"), id="strange-type"),
        pytest.param(changed("UPDATE usage SET failure_counts = '{'"), id="strange-json"),
        pytest.param(changed("DROP TABLE meta"), id="no-meta"),
    ],
)  # fmt: skip
def test_corrupt_store_is_moved_aside_and_created_again(
    opened: Opener, path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Its bytes stay, under a name that says what and when; the log says so; the new store works."""
    first = opened()
    for n in range(200):
        first.put_lease(f"old{n}", lease(f"old{n}"))
    first.put_usage(("", "anthropic:env"), Usage())
    first.flush()
    first.close()
    damage(path)
    damaged = path.read_bytes()

    store = opened()
    assert store.load() == StoredState()
    assert store.fault == ""
    assert len(store.digest_key) == 32
    aside = path.with_name("state.db.corrupt-20270115T080000Z")
    assert aside.read_bytes() == damaged
    assert "moved to state.db.corrupt-20270115T080000Z" in caplog.text
    put(store, lease("new"))
    store.close()
    assert ids(opened().load()) == {"new"}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(changed("DROP TABLE leases"), id="table-missing"),
        pytest.param(changed("UPDATE usage SET failure_counts = '{'"), id="strange-json"),
        pytest.param(changed("DROP TABLE meta"), id="no-meta"),
    ],
)
async def test_suspension_survives_a_corrupt_store(opened: Opener, path: Path, damage: Callable[[Path], None]) -> None:
    """S11: damage elsewhere in the file does not let a suspended agent act."""
    first = opened()
    first.put_usage(("", "anthropic:env"), Usage())
    await suspend(first)
    first.close()
    damage(path)
    store = opened()
    assert store.load().suspensions == {"coder": SUSPENSION}
    store.flush()
    store.close()
    assert list(path.parent.glob("state.db.corrupt-*"))
    assert opened().load().suspensions == {"coder": SUSPENSION}


async def test_unreadable_suspensions_are_reported(opened: Opener, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S11: the operator has to look, for the broker cannot."""
    first = opened()
    await suspend(first)
    first.close()
    garbage(path)
    assert opened().load() == StoredState()
    assert f"the suspended agents cannot be read from {path}: find them in the audit log" in caplog.text


def test_two_corruptions_in_one_second_lose_neither(opened: Opener, path: Path) -> None:
    """A moved file never replaces an earlier one."""
    path.parent.mkdir()
    for content in (b"first", b"second"):
        path.write_bytes(content)
        store = opened()
        store.load()
        store.close()
    assert sorted(found.read_bytes() for found in path.parent.glob("*corrupt*")) == [b"first", b"second"]


@pytest.mark.parametrize("damage", [page_overwritten, wrong_magic])
async def test_the_log_of_a_corrupt_database_does_not_reach_the_new_one(
    opened: Opener, path: Path, damage: Callable[[Path], None]
) -> None:
    """Neither is its content replayed, nor does it vanish: it is moved along, or its pages are in the file that was moved."""
    first = opened()
    put(first, *(lease(f"old{n}") for n in range(500)))
    await first.checkpoint()
    put(first, replace(lease("old77"), session="only-in-the-log"))
    log = path.with_name("state.db-wal").read_bytes()
    first.close()
    damage(path)
    path.with_name("state.db-wal").write_bytes(log)
    store = opened()
    assert store.load() == StoredState()
    put(store, lease("new"))
    assert ids(opened().load()) == {"new"}
    assert any(b"only-in-the-log" in found.read_bytes() for found in path.parent.glob("state.db.corrupt-*"))


def test_corruption_while_open_creates_a_new_store(opened: Opener, path: Path, clock: FakeClock) -> None:
    """What is put from then on is stored again; what the file held is kept aside."""
    store = opened()
    put(store, *(lease(f"old{n}") for n in range(2000)))
    asyncio.run(store.checkpoint())
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        other.execute("PRAGMA user_version = 1")  # makes the store drop its cached pages
    for n in range(50):
        put(store, lease(f"new{n}"))
        clock.advance(0.2)
    assert store.fault == ""
    assert "new49" in ids(opened().load())
    assert list(path.parent.glob("state.db.corrupt-*"))


# -- a disk that does not take it --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB of its own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", mount], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the space there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return ballast


def test_full_disk_is_reported_and_survived(
    small_disk: Path, opened: Opener, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing raises; nothing put is lost once there is space again; the log says it once."""
    store = opened(at=small_disk / "state.db")
    put(store, lease("before"))
    ballast = fill(small_disk)
    for n in range(300):
        put(store, lease(f"during{n}"))
        clock.advance(0.05)
    assert "full" in store.fault
    assert "free space on its volume" in store.fault
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
    asyncio.run(store.checkpoint())

    ballast.unlink()
    clock.advance(6.0)
    asyncio.run(store.checkpoint())
    assert store.fault == ""
    names = ids(opened(at=small_disk / "state.db").load())
    assert names == {"before"} | {f"during{n}" for n in range(300)}


async def test_unsaved_suspension_is_reported(small_disk: Path, opened: Opener) -> None:
    """S11: the answer says that it is not stored, and what to do; once there is space it is, without waiting for a retry."""
    path = small_disk / "state.db"
    store = opened(at=path)
    put(store, lease())
    ballast = fill(small_disk)
    faults = [await suspend(store, f"agent-{n}") for n in range(200)]
    assert "free space on its volume" in faults[-1]
    ballast.unlink()
    assert await store.sync() == ""
    assert len(opened(at=path).load().suspensions) == 200


def test_a_disk_that_is_full_at_the_start_still_gives_its_leases(small_disk: Path, opened: Opener, clock: FakeClock) -> None:
    """Also those in the write-ahead log of a broker that was killed; and what is put meanwhile is stored later."""
    first, path = opened(at=small_disk / "state.db"), small_disk / "state.db"
    put(first, lease("before"))
    key = first.digest_key
    left = {name: path.with_name(name).read_bytes() for name in ("state.db", "state.db-wal")}
    first.close()
    for name, content in left.items():
        path.with_name(name).write_bytes(content)
    ballast = fill(small_disk)

    store = opened(at=path)
    assert ids(store.load()) == {"before"}
    assert store.digest_key == key
    assert "cannot write" in store.fault
    put(store, lease("during"))
    store.put_lease("before", None)
    ballast.unlink()
    clock.advance(6.0)
    store.flush()
    assert store.fault == ""
    assert ids(opened(at=path).load()) == {"during"}


def test_store_is_created_when_the_directory_becomes_writable(small_disk: Path, opened: Opener, clock: FakeClock) -> None:
    """A disk that is full before there is a file: everything works from memory, with a key that then stays."""
    ballast = fill(small_disk)
    path = small_disk / "state.db"
    store = opened(at=path)
    assert store.load() == StoredState()
    key = store.digest_key
    put(store, lease())
    store.put_version(("", "anthropic:env"), StoredVersion(version=3, digest=b"d" * 16))
    assert store.fault
    ballast.unlink()
    clock.advance(6.0)
    store.flush()
    assert store.fault == ""
    again = opened(at=path)
    assert again.load() == StoredState(
        leases=(lease(),), versions={("", "anthropic:env"): StoredVersion(version=3, digest=b"d" * 16)}
    )
    assert again.digest_key == key


def test_read_only_disk_is_reported_and_survived(small_disk: Path, opened: Opener, clock: FakeClock) -> None:
    """Leases of before are served, new ones kept in memory until it is writable."""
    path = small_disk / "state.db"
    first = opened(at=path)
    put(first, lease("before"))
    first.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = opened(at=path)
    assert ids(store.load()) == {"before"}
    put(store, lease("during"))
    assert store.fault
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    clock.advance(6.0)
    store.flush()
    assert store.fault == ""
    assert ids(opened(at=path).load()) == {"before", "during"}


def test_ended_leases_do_not_accumulate_without_a_disk(small_disk: Path, opened: Opener, clock: FakeClock) -> None:
    """Memory is bounded by what lives and what the disk holds, however long it lasts; ends of stored leases are kept."""
    store = opened(at=small_disk / "state.db")
    put(store, lease("stored"))
    ballast = fill(small_disk)
    for n in range(3000):
        put(store, lease(f"passing{n}"))
        clock.advance(0.01)
        store.put_lease(f"passing{n}", None)
    store.put_lease("stored", None)
    assert store.fault
    assert len(store._leases) < 100
    ballast.unlink()
    clock.advance(6.0)
    store.flush()
    assert (store.fault, ids(opened(at=small_disk / "state.db").load())) == ("", set())


def test_a_recovered_disk_is_noticed_with_nothing_left_to_write(small_disk: Path, opened: Opener, clock: FakeClock) -> None:
    """The fault goes when writing works, and not before."""
    store = opened(at=small_disk / "state.db")
    put(store, lease("stored"))
    ballast = fill(small_disk)
    n = 0
    while not store.fault:
        n += 1
        put(store, lease(f"more{n}"))
    for gone in range(1, n + 1):
        store.put_lease(f"more{gone}", None)
    ballast.unlink()
    clock.advance(6.0)
    store.flush()
    assert store.fault == ""


def test_retries_are_spaced(path: Path, opened: Opener, clock: FakeClock) -> None:
    """A broken disk is not tried with every acquire: at most every five seconds, and soon again after the first failure."""
    path.parent.write_text("in the way")
    store = opened()
    store.load()
    tries = 0
    path.parent.unlink()
    path.parent.symlink_to("/dev/null/nowhere")
    while clock.steady() < 1060.0:
        before = store._retry_at
        put(store, lease())
        tries += store._retry_at != before
        clock.advance(0.01)
    assert 12 <= tries <= 40
    path.parent.unlink()
    clock.advance(5.0)
    store.flush()
    assert (store.fault, ids(opened().load())) == ("", {"l1"})


def test_flush_does_not_wait_for_another_writer(opened: Opener, path: Path, clock: FakeClock) -> None:
    """The event loop does not stand still for a stranger's lock; what was put is written once it is gone."""
    store = opened()
    store.load()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        put(store, lease())
        assert "let only one broker use it" in store.fault
        other.execute("COMMIT")
    clock.advance(1.0)
    store.flush()
    assert (store.fault, ids(opened().load())) == ("", {"l1"})


def test_a_file_size_limit_is_survived(tmp_path: Path) -> None:
    """Disk trouble without the right to mount: writes past a limit fail, later ones work, nothing is lost."""
    script = """
import resource, sys
from pathlib import Path
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.storage.read_only_state import ReadOnlyState
from equabot_broker.storage.state import SqliteStateStore
clock = SystemClock()
store = SqliteStateStore(Path(sys.argv[1]), clock=clock)
store.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
def put(name):
    now = clock.steady()
    store.put_lease(name, Lease(name, "main", "", "p", "p:n", True, Delivery.RAW, 900., now, now + 900., now + 3600.))
    store.flush()
number = 0
while not store.fault:
    put(f"l{number}")
    number += 1
put("last")
print(store.fault)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
again = SqliteStateStore(Path(sys.argv[1]), clock=clock)
assert {l.id for l in again.load().leases} == {f"l{n}" for n in range(number)} | {"last"}
again.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "state.db"], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout


# -- crashes and checkpoints -------------------------------------------------------------------------------------------


def test_killed_writer_loses_nothing_flushed(tmp_path: Path) -> None:
    """Hundred kills -9, at random instants of opening, flushing and checkpointing: readable, complete, whole transactions."""
    seed = random.randrange(2**32)
    program = Path(__file__).with_name("crashing.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path, "100", str(seed)],
        check=False, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(program.parents[2])},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "100 rounds\n"), f"seed {seed}: {done.stderr}"


async def test_checkpoints_keep_the_log_short_while_writing_goes_on(opened: Opener, path: Path) -> None:
    """The log would grow for ever without them; they disturb no flush, and lose nothing."""
    store, log = opened(), path.with_name("state.db-wal")
    highest = 0
    for n in range(2000):
        put(store, lease(f"l{n}"))
        if n % 100 == 0:
            await store.checkpoint()
            highest = max(highest, log.stat().st_size)
    assert highest < 6_000_000
    assert store.fault == ""
    assert len(opened().load().leases) == 2000


async def test_a_burst_leaves_no_large_log_behind(opened: Opener, path: Path) -> None:
    """After a checkpoint the next writes shorten the log to a few megabytes."""
    store, log = opened(), path.with_name("state.db-wal")
    for n in range(2500):
        put(store, lease(f"l{n:08}{n * 7919 % 2500}"))
    assert log.stat().st_size > 8_000_000
    await store.checkpoint()
    put(store, lease("next"))
    assert log.stat().st_size <= 4 * 1024 * 1024


async def test_a_checkpoint_makes_the_database_whole_without_its_log(opened: Opener, path: Path, tmp_path: Path) -> None:
    """What was flushed before it is in the file itself."""
    store = opened()
    put(store, lease())
    await store.checkpoint()
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    assert ids(opened(at=copy).load()) == {"l1"}


def test_a_checkpoint_with_nothing_written_does_nothing(opened: Opener, path: Path) -> None:
    """An idle broker leaves the disk alone."""
    store = opened()
    asyncio.run(store.checkpoint())
    assert not path.exists()
    store.load()
    asyncio.run(store.checkpoint())
    before = path.stat().st_mtime_ns
    asyncio.run(store.checkpoint())
    assert path.stat().st_mtime_ns == before


def test_a_checkpoint_that_fails_says_so(opened: Opener, path: Path) -> None:
    """A file that somebody removed is a fault, not silence."""
    store = opened()
    put(store, lease())
    path.unlink()
    asyncio.run(store.checkpoint())
    assert "safely to disk" in store.fault


def test_closed_store_writes_nothing(opened: Opener) -> None:
    """A late put of a task that is being cancelled neither raises nor reopens the file."""
    store = opened()
    put(store, lease("before"))
    store.close()
    put(store, lease("after"))
    store.close()
    assert ids(opened().load()) == {"before"}


def test_read_only_state_does_not_wait_for_a_running_broker(tmp_path: Path) -> None:
    """F11: `doctor` next to a running broker stalled for SQLite's five seconds each time."""
    path = tmp_path / "state.db"
    store = SqliteStateStore(path, clock=FakeClock())
    store.load()
    store.close()
    with closing(open_for_reading(path)) as db:
        (waits,) = db.execute("PRAGMA busy_timeout").fetchone()
    assert waits <= 200
