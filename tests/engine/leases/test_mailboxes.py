"""Mailboxes: a slow reader misses nothing, and what it has not taken is merged."""

import asyncio

import pytest

from equabot_broker.engine.leases.mailboxes import LeaseChange, Mailbox


async def test_unread_changes_are_merged() -> None:
    """A million notices are one."""
    mailbox = Mailbox()
    for _ in range(1000):
        mailbox.post(LeaseChange.ROTATED)
        mailbox.post(LeaseChange.DUE)
    assert await mailbox.take() == LeaseChange.ROTATED | LeaseChange.DUE
    mailbox.post(LeaseChange.ROTATED)
    assert await mailbox.take() == LeaseChange.ROTATED


async def test_taking_waits_for_news() -> None:
    """Nothing is not news."""
    mailbox = Mailbox()
    taking = asyncio.ensure_future(mailbox.take())
    mailbox.post(LeaseChange.NOTHING)
    await asyncio.sleep(0)
    assert not taking.done()
    mailbox.post(LeaseChange.DUE)
    async with asyncio.timeout(60):
        assert await taking == LeaseChange.DUE


async def test_the_first_reason_stays() -> None:
    """A stream that was revoked and then lost its connection was revoked."""
    mailbox = Mailbox()
    mailbox.post(LeaseChange.ENDED, "max_ttl")
    mailbox.post(LeaseChange.ENDED, "revoked")
    assert await mailbox.take() == LeaseChange.ENDED
    assert mailbox.reason == "max_ttl"


async def test_cancelled_reader_loses_no_change() -> None:
    """What comes after a cancelled take is found by the next one."""
    mailbox = Mailbox()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await mailbox.take()
    mailbox.post(LeaseChange.MOVED)
    assert await mailbox.take() == LeaseChange.MOVED
