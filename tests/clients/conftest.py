"""A broker by script, and clients of it that are closed afterwards."""

import threading
from collections.abc import AsyncIterator, Iterator

import pytest

import equabot_client
import equabot_client.aio
from tests.fakes.broker_servicer import FakeBroker
from tests.fakes.upstream import Upstream


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as started:
        yield started


@pytest.fixture
def broker(fake: FakeBroker) -> Iterator[equabot_client.Broker]:
    with equabot_client.connect(fake.address, timeout=60) as connected:
        yield connected
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("equabot")]
    assert not left, "threads outlive their broker"


@pytest.fixture
async def aio_broker(fake: FakeBroker) -> AsyncIterator[equabot_client.aio.AsyncBroker]:
    async with equabot_client.aio.connect(fake.address, timeout=60) as connected:
        yield connected


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started
