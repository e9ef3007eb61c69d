"""A Lease as a lock: one has it at a time, who dies is found out without comparing clocks, and nothing is taken twice."""

import asyncio
from typing import Any

import pytest

from equabot_broker.kube.api import KubeFault
from equabot_broker.kube.locking import LeaseLock, lease_name
from tests.fakes.clock import FakeClock
from tests.fakes.kube_api import MemoryKube, fault

LEASES = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
PATH = f"{LEASES}/equabot-refresh-llm"
SECONDS = 45


class World:
    """An API server, and processes that want the same lock, each on a node whose clock shows something else."""

    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.clock = FakeClock()

    def lock(self, holder: str, *, clock: FakeClock | None = None) -> LeaseLock:
        return LeaseLock(
            self.kube, "equabot-refresh-llm", namespace="ns", holder=holder, seconds=SECONDS, time=clock or self.clock,
            chance=lambda: 0.0,
        )  # fmt: skip

    @property
    def spec(self) -> dict[str, Any]:
        found = self.kube.objects[PATH]["spec"]
        assert isinstance(found, dict)
        return found

    @property
    def writes(self) -> int:
        return sum(verb != "get" for verb, _ in self.kube.asked)


@pytest.fixture
def world() -> World:
    return World()


async def refused(lock: LeaseLock) -> KubeFault:
    with pytest.raises(KubeFault) as raised:
        await lock.acquire(within=0)
    return raised.value


async def test_first_holder_creates_the_lease(world: World) -> None:
    """It goes with the object that it stands for, and says who has it, since when, and for how long."""
    owner = {"apiVersion": "v1", "kind": "Secret", "name": "llm", "uid": "u"}
    await world.lock("a").acquire(within=0, owner=owner)
    made = world.kube.objects[PATH]
    assert made["metadata"]["ownerReferences"] == [owner]
    assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "equabot-broker"}
    assert world.spec == {
        "holderIdentity": "a",
        "leaseDurationSeconds": SECONDS,
        "acquireTime": "2027-01-15T08:00:00.000000Z",
        "renewTime": "2027-01-15T08:00:00.000000Z",
        "leaseTransitions": 0,
    }


async def test_lock_has_one_holder(world: World) -> None:
    """The refusal of another process names the Lease and its holder. After a release, any process acquires it."""
    first, second = world.lock("a"), world.lock("b")
    await first.acquire(within=0)
    raised = await refused(second)
    assert (raised.reason, "equabot-refresh-llm in namespace ns is held by a" in str(raised)) == ("Locked", True)
    await first.release()
    assert "holderIdentity" not in world.spec
    await second.acquire(within=0)
    assert (world.spec["holderIdentity"], world.spec["leaseTransitions"]) == ("b", 1)


async def test_waiting_process_acquires_a_released_lock(world: World) -> None:
    """Within two seconds of its return."""
    first, second = world.lock("a"), world.lock("b")
    await first.acquire(within=0)
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(second.acquire(within=10))
        await world.clock.elapse(5)
        assert not taking.done()
        await first.release()
        await world.clock.elapse(2)
        assert taking.done()


async def test_unchanged_lease_is_taken_over(world: World) -> None:
    """Unchanged for longer than it was taken for, as the looker's own steady clock says. What was seen in an earlier attempt
    counts: nobody has to wait for that long at a stretch."""
    await world.lock("a").acquire(within=0)
    survivor = world.lock("b")
    await refused(survivor)
    await world.clock.elapse(SECONDS)
    await refused(survivor)
    await world.clock.elapse(1)
    await survivor.acquire(within=0)
    assert world.spec["holderIdentity"] == "b"


async def test_the_clocks_of_two_nodes_are_never_compared(world: World) -> None:
    """However far they are apart, nobody takes a lock that is renewed, nor waits longer for one that is not."""
    for skew in (-(10.0**7), 10.0**7):
        world.kube.objects.clear()
        holder = world.lock("a")
        await holder.acquire(within=0)
        other = world.lock("b", clock=FakeClock(now=world.clock.now() + skew))
        for _ in range(4):
            await refused(other)
            world.clock.advance(SECONDS * 0.9)
            other._time.advance(SECONDS * 0.9)  # type: ignore[attr-defined]
            await holder.renew()
        other._time.jump_wall(10.0**6)  # type: ignore[attr-defined]
        await refused(other)


async def test_lease_is_renewed_after_a_third_of_its_duration(world: World) -> None:
    """Not in the first third of its time."""
    lock = world.lock("a")
    await lock.acquire(within=0)
    writes = world.writes
    await world.clock.elapse(SECONDS / 3 - 1)
    await lock.renew()
    assert world.writes == writes
    await world.clock.elapse(2)
    await lock.renew()
    assert world.writes == writes + 1
    assert world.spec["acquireTime"] < world.spec["renewTime"]
    assert world.spec["leaseTransitions"] == 0


async def test_lease_is_renewed_before_a_long_step(world: World) -> None:
    """Unless it has just been taken: whoever asks somebody else meanwhile cannot renew it."""
    lock = world.lock("a")
    await lock.acquire(within=0)
    await world.clock.elapse(4)
    writes = world.writes
    await lock.renew(long=True)
    assert world.writes == writes
    await world.clock.elapse(2)
    await lock.renew(long=True)
    assert world.writes == writes + 1


async def test_former_holder_gets_lost(world: World) -> None:
    """And lets the lock be."""
    first, second = world.lock("a"), world.lock("b")
    await first.acquire(within=0)
    await refused(second)
    await world.clock.elapse(SECONDS + 1)
    await second.acquire(within=0)
    with pytest.raises(KubeFault, match="taken over by b") as raised:
        await first.renew()
    assert raised.value.reason == "Lost"
    await first.release()
    assert world.spec["holderIdentity"] == "b"


async def test_concurrent_attempts_have_one_winner(world: World) -> None:
    """Whether they make it or take it."""
    locks = [world.lock(name) for name in "abcd"]
    for _ in range(2):
        results = await asyncio.gather(*(lock.acquire(within=0) for lock in locks), return_exceptions=True)
        assert sorted(isinstance(result, KubeFault) for result in results) == [False, True, True, True]
        await locks[[isinstance(result, KubeFault) for result in results].index(False)].release()


async def test_lost_response_to_an_acquire_is_recovered(world: World) -> None:
    """The next attempt sees who has it."""
    lock = world.lock("a")
    for verb in ("create", "replace"):
        world.kube.lost[verb] = [fault("TimedOut")]
        with pytest.raises(KubeFault):
            await lock.acquire(within=0)
        assert world.spec["holderIdentity"] == "a"
        await lock.acquire(within=0)
        await lock.release()
    world.kube.lost["replace"] = [fault("Conflict", 409)]  # as a client that repeats a request of its own gets to see
    async with asyncio.TaskGroup() as group:
        group.create_task(lock.acquire(within=1))
        await world.clock.elapse(0.1)
    assert world.spec["holderIdentity"] == "a"


async def test_unreleased_lock_stays_with_its_process(world: World) -> None:
    """Until it ends; and the same process takes it again at any time."""
    lock, other = world.lock("a"), world.lock("b")
    await lock.acquire(within=0)
    lock.abandon()
    await lock.release()
    await refused(other)
    await lock.acquire(within=0)
    await lock.release()
    await other.acquire(within=0)


async def test_outage_of_the_server_expires_no_lease(world: World) -> None:
    """Its holder may be as cut off as we are: it gets all its time again."""
    await world.lock("a").acquire(within=0)
    other = world.lock("b")
    await refused(other)
    await world.clock.elapse(SECONDS - 1)
    world.kube.down = fault("Unreachable")
    assert (await refused(other)).reason == "Unreachable"
    world.kube.down = None
    await world.clock.elapse(SECONDS)
    await refused(other)
    await world.clock.elapse(SECONDS + 1)
    await other.acquire(within=0)


async def test_forbidden_lock_fails_at_once(world: World) -> None:
    """Waiting would not help."""
    world.kube.faults["create"] = [fault("Forbidden", 403)]
    with pytest.raises(KubeFault) as raised:
        await world.lock("a").acquire(within=60)
    assert raised.value.reason == "Forbidden"


@pytest.mark.parametrize(
    "spec", [None, [], "x", {}, {"holderIdentity": "z", "leaseDurationSeconds": "x", "leaseTransitions": {}}]
)
async def test_malformed_lease_is_taken_over(world: World, spec: Any) -> None:
    """After our own time, where it does not say a usable one; and what else is in it stays."""
    world.kube.put(PATH, {"metadata": {"name": "equabot-refresh-llm", "labels": {"l": "1"}}, "spec": spec})
    lock = world.lock("a")
    if isinstance(spec, dict) and spec:
        await refused(lock)
        await world.clock.elapse(SECONDS + 1)
    await lock.acquire(within=0)
    assert world.spec["leaseTransitions"] == 0
    assert world.kube.objects[PATH]["metadata"]["labels"] == {"l": "1"}


@pytest.mark.parametrize("answer", [{}, {"kind": "Status"}, {"metadata": {}}, {"metadata": "x"}])
async def test_response_without_a_lease_is_malformed(world: World, answer: dict[str, Any]) -> None:
    """Something stands between, and answers in the server's place."""
    world.kube.objects[PATH] = answer
    assert (await refused(world.lock("a"))).reason == "Malformed"


async def test_duration_of_another_holder_is_its_own(world: World) -> None:
    """A newer or older program may hold it for longer."""
    world.kube.put(PATH, {"metadata": {}, "spec": {"holderIdentity": "z", "leaseDurationSeconds": 100}})
    lock = world.lock("a")
    await refused(lock)
    await world.clock.elapse(99)
    await refused(lock)
    await world.clock.elapse(2)
    await lock.acquire(within=0)


def test_lease_names_are_valid_and_unique() -> None:
    """A Secret's name may be as long as a Lease's."""
    assert lease_name("equabot-refresh", "llm") == "equabot-refresh-llm"
    long = [lease_name("equabot-refresh", "a" * 219 + tail) for tail in (".b" * 17, ".b" * 16 + "-c")]
    assert [len(name) <= 253 for name in long] == [True, True]
    assert len(set(long)) == 2
    assert all(".-" not in name and "--" not in name for name in long)
