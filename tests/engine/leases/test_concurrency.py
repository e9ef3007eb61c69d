"""Requests under way: counted by agent, and never for ever."""

import pytest

from equabot_broker.domain.errors import RateLimited
from equabot_broker.engine.leases.concurrency import Concurrency


def test_requests_are_counted_by_agent() -> None:
    """S10: each has its own."""
    counted = Concurrency()
    counted.begin("a", "1", most=1, now=0.0)
    counted.begin("b", "2", most=1, now=0.0)
    with pytest.raises(RateLimited):
        counted.begin("a", "3", most=1, now=0.0)
    assert (counted.of("a"), counted.of("b"), counted.of("c")) == (1, 1, 0)


def test_ended_request_frees_a_slot() -> None:
    """In any order, and also what nobody knows."""
    counted = Concurrency()
    for name in "123":
        counted.begin("a", name, most=3, now=0.0)
    counted.end("a", "2")
    counted.end("a", "2")
    counted.end("b", "9")
    counted.begin("a", "4", most=3, now=1.0)
    assert counted.of("a") == 3


def test_lost_log_entry_counts_for_an_hour() -> None:
    """Then its place is free, and so it is once no Envoy is connected."""
    counted = Concurrency()
    counted.begin("a", "1", most=1, now=0.0)
    with pytest.raises(RateLimited):
        counted.begin("a", "2", most=1, now=3599.0)
    counted.begin("a", "2", most=1, now=3600.0)
    counted.forget()
    counted.begin("a", "3", most=1, now=3600.0)
    assert counted.of("a") == 1
