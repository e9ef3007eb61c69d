"""Mailboxes: a slow reader misses nothing, and what it has not taken is merged."""

import asyncio

import pytest

from equabot_broker.engine.leases.mailboxes import Mailbox, News


async def test_news_is_merged_until_it_is_taken() -> None:
    """A million notices are one."""
    mailbox = Mailbox()
    for _ in range(1000):
        mailbox.post(News.ROTATED)
        mailbox.post(News.DUE)
    assert await mailbox.take() == News.ROTATED | News.DUE
    mailbox.post(News.ROTATED)
    assert await mailbox.take() == News.ROTATED


async def test_taking_waits_for_news() -> None:
    """Nothing is not news."""
    mailbox = Mailbox()
    taking = asyncio.ensure_future(mailbox.take())
    mailbox.post(News.NOTHING)
    await asyncio.sleep(0)
    assert not taking.done()
    mailbox.post(News.DUE)
    async with asyncio.timeout(60):
        assert await taking == News.DUE


async def test_the_first_reason_stays() -> None:
    """A stream that was revoked and then lost its connection was revoked."""
    mailbox = Mailbox()
    mailbox.post(News.ENDED, "max_ttl")
    mailbox.post(News.ENDED, "revoked")
    assert await mailbox.take() == News.ENDED
    assert mailbox.reason == "max_ttl"


async def test_a_reader_that_gave_up_takes_nothing_with_it() -> None:
    """What comes after a cancelled take is found by the next one."""
    mailbox = Mailbox()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await mailbox.take()
    mailbox.post(News.MOVED)
    assert await mailbox.take() == News.MOVED
