"""The twin for event loops, over the real wire. What both share is tested with `Credential` and `keep`."""

import asyncio
import gc
import subprocess
import sys
import textwrap
from datetime import timedelta

import grpc
import pytest

import equabot_client.aio
from equabot.broker.v1 import broker_pb2 as pb
from equabot_client import Lease, Outcome, errors
from equabot_client.aio import AsyncBroker
from tests.fakes.broker_servicer import FakeBroker, Refusal

UNIMPLEMENTED = Refusal(grpc.StatusCode.UNIMPLEMENTED)


async def test_the_first_use_brings_all_of_a_lease(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """However many wait for it: one stream serves them all."""
    credential = aio_broker.credential("anthropic")
    for headers in await asyncio.gather(*(credential.headers() for _ in range(50))):
        assert dict(headers) == {"x-api-key": fake.secret}
    assert (await credential.secret()).reveal() == fake.secret
    assert dict(await credential.env()) == {"ANTHROPIC_API_KEY": fake.secret}
    assert fake.calls == ["StreamLease"]


async def test_a_rotation_arrives_by_itself(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """And everybody who waits for it, or asked to be told, learns of it."""
    told: list[Lease] = []
    credential = aio_broker.credential("anthropic", on_rotate=told.append)
    first = await credential.lease()
    fake.rotate("sk-two")
    assert (await credential.wait_for_change(since=first, timeout=60)).secret.reveal() == "sk-two"
    assert (await credential.headers())["x-api-key"] == "sk-two"
    assert [lease.version for lease in told] == [2]


async def test_while_the_broker_is_away_what_was_in_hand_is_served(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """And when it is back, the credential is current again."""
    credential = aio_broker.credential("anthropic")
    first = await credential.lease()
    fake.stop()
    assert await credential.lease() == first
    fake.secret, fake.version = "sk-after", 2
    fake.start()
    assert (await credential.wait_for_change(since=first, timeout=60)).secret.reveal() == "sk-after"


async def test_after_the_lease_has_ended_the_absence_of_the_broker_is_told(fake: FakeBroker) -> None:
    """By reason, and until it is back."""
    fake.ttl = timedelta(seconds=1)
    async with equabot_client.aio.connect(fake.address, timeout=5) as broker:
        credential = broker.credential("anthropic")
        first = await credential.lease()
        fake.stop()
        with pytest.raises(errors.DeadlineExceeded):
            await credential.wait_for_change(since=first, timeout=1)
        with pytest.raises(errors.BrokerUnavailable, match="no broker answers at unix:"):
            await credential.headers()
        fake.start()
        assert (await credential.secret()).reveal() == fake.secret


async def test_a_refusal_is_told_at_once_and_forgotten_when_mended(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """With its candidates."""
    fake.refusals["StreamLease"] = Refusal(
        grpc.StatusCode.FAILED_PRECONDITION, "NO_USABLE_PROFILE", metadata={"a:b": "expired"}
    )
    credential = aio_broker.credential("anthropic")
    for _ in range(3):
        with pytest.raises(errors.NoUsableProfile) as raised:
            await credential.headers()
        assert raised.value.candidates == {"a:b": "expired"}
    del fake.refusals["StreamLease"]
    assert (await credential.headers())["x-api-key"] == fake.secret


async def test_a_broker_that_never_answers_is_given_up_in_time(fake: FakeBroker) -> None:
    """The caller gets DeadlineExceeded; the task goes on trying."""
    fake.silent = {"StreamLease", "AcquireLease"}
    async with equabot_client.aio.connect(fake.address, timeout=5) as broker:
        credential = broker.credential("anthropic")
        with pytest.raises(errors.DeadlineExceeded):
            await credential.headers()
        fake.silent.clear()
        await asyncio.to_thread(fake.wait_until, lambda: fake.streams)
        assert (await credential.headers())["x-api-key"] == fake.secret


async def test_where_streams_are_unknown_the_lease_is_renewed(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """And brings what changed, at once after a report; and is given back at the end."""
    fake.refusals["StreamLease"] = UNIMPLEMENTED
    credential = aio_broker.credential("anthropic")
    first = await credential.lease()
    fake.change_on_report = "sk-spare"
    assert await credential.report(Outcome.AUTH, lease=first) is True
    assert (await credential.secret()).reveal() == "sk-spare"
    await credential.close()
    assert fake.calls == ["StreamLease", "AcquireLease", "ReportOutcome", "RenewLease", "RevokeLease"]


async def test_at_the_end_of_a_lease_the_next_begins_before_it(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """The old stream stays open until the next lease is there, and its token goes on."""
    fake.delivery, fake.ttl = "brokered", timedelta(seconds=0.8)
    credential = aio_broker.credential("anthropic")
    first = await credential.lease()
    with pytest.raises(errors.DeadlineExceeded):
        await credential.wait_for_change(since=first, timeout=0.45)  # more than half of it passes
    fake.push(pb.LeaseEvent.EXPIRING, reason="max_ttl")
    await asyncio.to_thread(fake.wait_until, lambda: len(fake.streams) == 2)
    assert fake.revoked == []
    async with asyncio.timeout(60):
        while (await credential.lease()).id == first.id:  # noqa: ASYNC110 - a lease of the same material is no news
            await asyncio.sleep(0.005)
    assert await credential.secret() == first.secret


async def test_a_lease_that_was_taken_away_is_not_served(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """Although its time was not over."""
    credential = aio_broker.credential("anthropic")
    await credential.headers()
    fake.refusals["StreamLease"] = Refusal(grpc.StatusCode.PERMISSION_DENIED, "POLICY_DENIED")
    fake.push(pb.LeaseEvent.REVOKED, reason="policy")
    await asyncio.to_thread(fake.wait_until, lambda: fake.calls.count("StreamLease") >= 2)
    with pytest.raises(errors.PolicyDenied):
        await credential.headers()


async def test_closing_gives_the_lease_back_and_releases_those_who_wait(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """Any number of times; afterwards every use says that it is closed."""
    async with aio_broker.credential("anthropic") as credential:
        waiting = asyncio.create_task(credential.wait_for_change(since=await credential.lease()))
        await asyncio.sleep(0)
    await credential.close()
    await asyncio.to_thread(fake.wait_until, lambda: fake.revoked == ["lease-1"])
    with pytest.raises(errors.CredentialClosed):
        await waiting
    with pytest.raises(errors.CredentialClosed):
        await credential.headers()


async def test_a_credential_that_is_dropped_is_closed(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """No task and no stream outlives the last reference to it."""
    await aio_broker.credential("anthropic").headers()
    gc.collect()
    await asyncio.to_thread(fake.wait_until, lambda: fake.revoked == ["lease-1"])


async def test_cancelling_a_wait_cancels_nothing_else(fake: FakeBroker) -> None:
    """The credential is shared: one caller's timeout is not the others' concern."""
    fake.silent = {"StreamLease"}
    async with equabot_client.aio.connect(fake.address, timeout=5) as broker:
        credential = broker.credential("anthropic")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await credential.headers()
        fake.silent.clear()
        assert (await credential.headers())["x-api-key"] == fake.secret


def test_a_loop_may_end_with_an_open_credential(fake: FakeBroker) -> None:
    """Without a word or a warning, and the lease is given back. In another loop the credential says that it is not at home."""
    code = f"""
    import asyncio, equabot_client.aio
    broker = equabot_client.aio.connect({fake.address!r}, timeout=60)
    credential = broker.credential("anthropic")
    async def use():
        asyncio.get_running_loop().slow_callback_duration = 60  # development mode reports a slow machine, too
        print(len(await credential.headers()))
    asyncio.run(use())
    try:
        asyncio.run(use())
    except equabot_client.errors.CredentialClosed as error:
        print(error.reason)
    """
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\nCLOSED\n", "")
    fake.wait_until(lambda: fake.revoked == ["lease-1"])


async def test_nothing_of_the_secret_shows(fake: FakeBroker, aio_broker: AsyncBroker) -> None:
    """Before and after there is something in hand."""
    credential = aio_broker.credential("anthropic")
    assert "nothing in hand" in repr(credential)
    lease = await credential.lease()
    assert "anthropic:env until" in repr(credential)
    assert "canary" not in f"{credential!r} {vars(credential)} {vars(credential._keeper)} {lease!r} {aio_broker!r}"
