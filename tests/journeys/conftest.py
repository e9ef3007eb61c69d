"""Brokers for journeys."""

from collections.abc import Iterator, Mapping
from typing import Protocol

import pytest

from tests.journeys.running import KEY, RunningBroker


class MakeBroker(Protocol):
    """Makes a broker that is not started yet; it ends with the test.

    `credentials` is what its environment holds beside the usual, `dotenv` its `.env`, `config` its `equabot.yaml`.
    """

    def __call__(
        self, *, credentials: Mapping[str, str] | None = None, dotenv: str = "", config: str = ""
    ) -> RunningBroker: ...


@pytest.fixture
def make_broker() -> Iterator[MakeBroker]:
    """Brokers as a test wants them."""
    made: list[RunningBroker] = []

    def make(*, credentials: Mapping[str, str] | None = None, dotenv: str = "", config: str = "") -> RunningBroker:
        made.append(RunningBroker(credentials=credentials or {}, dotenv=dotenv, config=config))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def running_broker(make_broker: MakeBroker) -> RunningBroker:
    """A broker with an Anthropic key in its `.env` and no configuration, serving."""
    return make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()


@pytest.fixture(scope="module")
def shared_broker() -> Iterator[RunningBroker]:
    """The same, one for all tests of a module: for those that change nothing and leave no lease behind."""
    broker = RunningBroker(credentials={}, dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config="")
    yield broker.start()
    broker.close()
