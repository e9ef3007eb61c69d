"""A program for test_state: writes state in children that it kills at random instants, and reads what they left.

Every lease a child has flushed and said so must be there; a flush of many leases is there as a whole or not at all.
"""

import asyncio
import os
import random
import select
import signal
import struct
import sys
from pathlib import Path
from typing import NoReturn

from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.storage.state import SqliteStateStore

BATCH = 20
ACK = struct.Struct("!I")


def lease(name: str, now: float) -> Lease:
    return Lease(name, "main", "", "anthropic", "anthropic:env", True, Delivery.RAW, 900.0, now, now + 900.0, now + 3600.0)


async def write(path: Path, prefix: str, acks: int) -> None:
    clock = SystemClock()
    store = SqliteStateStore(path, clock=clock)
    store.load()
    number = 0
    while True:
        names = [f"{prefix}-{number}-{part}" for part in range(BATCH if number % 5 == 0 else 1)]
        for name in names:
            store.put_lease(name, lease(name, clock.steady()))
        store.flush()
        os.write(acks, ACK.pack(number))
        if number % 7 == 0:
            await store.checkpoint()
        number += 1


def child(path: Path, prefix: str, acks: int) -> NoReturn:
    try:
        asyncio.run(write(path, prefix, acks))
    finally:
        os._exit(1)


def one_round(path: Path, prefix: str, chance: random.Random) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        child(path, prefix, writer)
    os.close(writer)
    if chance.random() < 0.3:
        select.select([reader], [], [], chance.uniform(0, 0.006))  # early: while it opens, migrates or writes first
    else:
        for _ in range(chance.randrange(40)):
            os.read(reader, ACK.size)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"the writer ended by itself: {status}"
    with os.fdopen(reader, "rb") as rest:
        said = rest.read()
    check(path, prefix, ACK.unpack(said[-ACK.size :])[0] if said else -1)


def check(path: Path, prefix: str, last: int) -> None:
    store = SqliteStateStore(path, clock=SystemClock())
    names = {found.id for found in store.load().leases if found.id.startswith(f"{prefix}-")}
    assert not store.fault, store.fault
    store.close()
    assert not list(path.parent.glob("*corrupt*")), "a killed writer left a corrupt database"
    missing = [n for n in range(last + 1) if f"{prefix}-{n}-0" not in names]
    assert not missing, f"flushed but gone: {missing[:5]} of {last}"
    for number in range(0, last + 10, 5):
        found = sum(f"{prefix}-{number}-{part}" in names for part in range(BATCH))
        assert found in (0, BATCH), f"half a transaction: {found} of {BATCH}"


def main() -> None:
    directory, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    file = 0
    for number in range(rounds):
        file += chance.random() < 0.3
        one_round(directory / f"{file}" / "state.db", f"r{number}", chance)
    print(f"{rounds} rounds")


if __name__ == "__main__":
    main()
