"""F19: a client that was used before a fork, in real processes."""

import collections
import subprocess
import sys
import textwrap

import grpc
import pytest

from tests.fakes.broker_servicer import FakeBroker

pytestmark = pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 85),
    reason="gRPC's own fork handlers crash now and then while a stream is open (seen with 1.80)",
)

_FORKS = """
import equabot_client, os, sys
from equabot_client import aio

broker = equabot_client.connect(sys.argv[1], timeout=60)

def fork(work):
    child = os.fork()
    if child:
        return lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        work()
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def _run(fake: FakeBroker, code: str) -> list[str]:
    script = _FORKS + textwrap.dedent(code)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script, fake.address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [line for line in ran.stderr.splitlines() if "skipping fork() handlers" not in line] == []
    return ran.stdout.splitlines()


def test_children_and_grandchildren_open_leases_of_their_own(fake: FakeBroker) -> None:
    """The broker, a credential in use and one not used yet; the parent keeps what it has."""
    said = _run(
        fake,
        """
        used, unused = broker.credential('anthropic'), broker.credential('anthropic')
        say('lease', used.lease().id)

        def child():
            say('lease', used.lease().id)
            say('lease', unused.lease().id)
            say('lease', broker.acquire('anthropic').id)
            say('ended', fork(lambda: say('lease', used.lease().id))())

        for wait in [fork(child) for _ in range(3)]:
            say('ended', wait())
        say('again', used.lease().id)
        """,
    )
    leases = [line for line in said if line.startswith("lease ")]
    assert len(leases) == len(set(leases)) == 1 + 3 * 4
    assert collections.Counter(said)["ended 0"] == 6
    assert said[-1] == said[0].replace("lease ", "again ")


def test_a_rotation_reaches_parent_and_child(fake: FakeBroker) -> None:
    """Each by its own stream."""
    fake.change_on_report = "sk-two"
    said = _run(
        fake,
        """
        credential = broker.credential('anthropic')
        first = credential.lease()

        def child():
            before = credential.lease()
            assert credential.report(equabot_client.Outcome.AUTH) is True
            say(credential.wait_for_change(since=before, timeout=60).secret.reveal())

        wait = fork(child)
        say(credential.wait_for_change(since=first, timeout=60).secret.reveal())
        say(wait())
        """,
    )
    assert sorted(said) == ["0", "sk-two", "sk-two"]


def test_a_child_gives_back_its_own_lease_and_no_other(fake: FakeBroker) -> None:
    """Closing, and the end of the child's interpreter, leave the parent's lease alone. A token is the process's own, too."""
    fake.delivery = "brokered"
    said = _run(
        fake,
        """
        credential = broker.credential('anthropic', holder='worker')
        before = credential.lease()

        def child():
            say(credential.secret() == before.secret)
            broker.close()
            try:
                credential.lease()
            except equabot_client.EquabotError as error:
                say(error.reason)

        say(fork(child)())
        say(credential.lease().id == before.id)
        """,
    )
    assert said == ["False", "CLOSED", "0", "True"]
    fake.wait_until(lambda: sorted(fake.revoked) == ["lease-1", "lease-2"])
    assert [(request.holder, request.succeeds) for request in fake.requests] == [("worker", ""), ("", "")]


def test_what_was_closed_before_a_fork_is_closed_after_it(fake: FakeBroker) -> None:
    """A fork opens nothing again."""
    said = _run(
        fake,
        """
        credential = broker.credential('anthropic')
        credential.headers()
        credential.close()

        def child():
            try:
                credential.headers()
            except equabot_client.EquabotError as error:
                say(error.reason)

        say(fork(child)())
        """,
    )
    assert said == ["CLOSED", "0"]


def test_a_fork_within_a_callback_leaves_both_sides_whole(fake: FakeBroker) -> None:
    """There the thread that forks is the credential's own."""
    fake.change_on_report = "sk-two"
    said = _run(
        fake,
        """
        forked = []

        def on_rotate(lease):
            if not forked:
                forked.append(fork(lambda: say(len(credential.headers()))))

        credential = broker.credential('anthropic', on_rotate=on_rotate)
        before = credential.lease()
        credential.report(equabot_client.Outcome.AUTH)
        credential.wait_for_change(since=before, timeout=60)
        while not forked:
            pass
        say(forked[0]())
        """,
    )
    assert said == ["1", "0"]


def test_multiprocessing_may_fork(fake: FakeBroker) -> None:
    """A pool whose workers inherit the credential."""
    said = _run(
        fake,
        """
        import multiprocessing

        credential = broker.credential('anthropic')
        credential.headers()

        def use(_):
            return credential.secret().reveal()

        with multiprocessing.get_context('fork').Pool(2) as pool:
            print(*pool.map(use, range(4)))
        """,
    )
    assert said == [" ".join([fake.secret] * 4)]


def test_an_event_loop_of_the_child_has_its_own_broker(fake: FakeBroker) -> None:
    """Where none was used before the fork."""
    said = _run(
        fake,
        """
        import asyncio

        before = aio.connect(sys.argv[1], timeout=60)

        async def use():
            async with before:
                say(len(await before.credential('anthropic').headers()))

        say(fork(lambda: asyncio.run(use()))())
        """,
    )
    assert said == ["1", "0"]


def test_after_an_event_loop_was_used_a_child_gets_an_error_and_never_waits(fake: FakeBroker) -> None:
    """gRPC cannot be used in such a child, with an event loop or without: now and then a call would wait without end."""
    said = _run(
        fake,
        """
        import asyncio

        async def use():
            async with aio.connect(sys.argv[1], timeout=60) as broker:
                return len(await broker.credential('anthropic').headers())

        def child():
            for attempt in (
                lambda: asyncio.run(use()),
                lambda: used.headers(),
                lambda: broker.credential('anthropic').headers(),
                lambda: broker.acquire('anthropic'),
            ):
                try:
                    attempt()
                except equabot_client.errors.Forked as error:
                    say('fork before the first use of equabot_client.aio' in str(error))

        used = broker.credential('anthropic')
        used.headers()
        asyncio.run(use())
        say(fork(child)())
        """,
    )
    assert said == ["True", "True", "True", "True", "0"]
