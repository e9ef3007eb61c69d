"""One event counts once: many workers that meet the same, in whatever order what they met arrives, are one failure."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.answers import ProviderAnswer
from equabot_broker.domain.cooldowns import HOUR, MINUTE, Outcome, Usage
from equabot_broker.domain.leases import Lease
from equabot_broker.engine.leases.gateway_access import RequestNames
from equabot_broker.engine.leases.messages import LeaseRequest
from tests.fakes.engine import ANYTHING, Engine, profile

A, B = "anthropic:a", "anthropic:b"
COOLS = [Outcome.RATE_LIMIT, Outcome.TIMEOUT, Outcome.BILLING]


def made(*agents: str) -> Engine:
    engine = Engine(agents=dict.fromkeys(agents or ("main",), ANYTHING))
    engine.put(profile(A), profile(B))
    return engine


def acquire(engine: Engine, agent: str = "main", *, model: str = "") -> Lease:
    return engine.lease_service.acquire(agent, LeaseRequest(profile=A, model=model)).lease


def usage(engine: Engine) -> Usage:
    """What is held against the profile."""
    return replace(engine.registry.usage(("", A)), last_used=0.0)


def later(engine: Engine, seconds: float) -> None:
    engine.clock.advance(seconds)
    engine.expiry.turn()


@pytest.mark.parametrize("outcome", COOLS)
@pytest.mark.parametrize("apart", [0.0, 0.25, 7.0])
async def test_eight_workers_that_meet_the_same_are_one_failure(outcome: Outcome, apart: float) -> None:
    """P3: each with a lease of its own, and none says when its request began: a minute, and not an hour or a day."""
    engine = made()
    leases = [acquire(engine) for _ in range(8)]
    engine.clock.advance(30)
    first = engine.clock.now()
    for lease in leases:
        engine.lease_service.report("main", lease.id, outcome)
        engine.clock.advance(apart)
    assert (usage(engine).cooldown_until, usage(engine).disabled_until) == (first + MINUTE, 0.0)
    assert usage(engine).failure_counts == {outcome.value: 1}


async def test_an_empty_account_is_disabled_once() -> None:
    """P3: five hours, and not a day, however many requests say so."""
    engine = made()
    leases = [acquire(engine) for _ in range(8)]
    engine.lease_service.report("main", leases[0].id, Outcome.BILLING)
    later(engine, MINUTE + 1)
    for lease in leases:
        engine.lease_service.report("main", lease.id, Outcome.BILLING)
        engine.clock.advance(1)
    now = engine.clock.now()
    assert usage(engine).disabled_until == now - 8 + 5 * HOUR


async def test_request_during_the_cooldown_counts() -> None:
    """P3: it says so itself, or its lease is younger than the cooldown."""
    engine = made()
    old = acquire(engine)
    engine.clock.advance(1)
    engine.lease_service.report("main", old.id, Outcome.RATE_LIMIT)
    engine.clock.advance(10)
    engine.lease_service.report("main", old.id, Outcome.RATE_LIMIT, elapsed=11.0)
    assert usage(engine).error_count == 1
    engine.lease_service.report("main", old.id, Outcome.RATE_LIMIT, elapsed=2.0)
    assert usage(engine).cooldown_until == engine.clock.now() + 5 * MINUTE
    engine.clock.advance(1)
    young = acquire(engine)
    engine.clock.advance(1)
    engine.lease_service.report("main", young.id, Outcome.RATE_LIMIT)
    assert usage(engine).cooldown_until == engine.clock.now() + 25 * MINUTE


async def test_late_report_starts_no_second_cooldown() -> None:
    """P3: a request that hung for two minutes, reported when the cooldown of the others is over; nor a rejection."""
    for outcome in (*COOLS, Outcome.AUTH):
        engine = made()
        lease = acquire(engine)
        engine.clock.advance(5)
        engine.lease_service.report("main", lease.id, outcome)
        before = usage(engine)
        later(engine, 2 * MINUTE)
        engine.lease_service.report("main", lease.id, outcome, elapsed=2 * MINUTE + 1)
        assert usage(engine) == before


async def test_a_success_from_before_the_failure_ends_no_cooldown() -> None:
    """P3: it was under way when the limit was met."""
    engine = made()
    lease = acquire(engine)
    engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT)
    engine.clock.advance(3)
    engine.lease_service.report("main", lease.id, Outcome.OK, elapsed=4.0)
    assert usage(engine).cooldown_until
    engine.lease_service.report("main", lease.id, Outcome.OK, elapsed=1.0)
    assert not usage(engine).cooldown_until


SPOKEN = st.tuples(
    st.sampled_from(["says when", "does not say", "gateway"]),
    st.floats(0.001, 40, allow_nan=False),  # seconds before the first failure at which the request was made
    st.floats(0, 50, allow_nan=False),  # seconds after it at which the word comes
)


@given(st.sampled_from(COOLS), st.lists(SPOKEN, max_size=12), st.sampled_from(["", "opus"]))
def test_any_interleaving_of_what_was_made_before_is_as_one(
    outcome: Outcome, words: list[tuple[str, float, float]], model: str
) -> None:
    """P3: by clients that say when their request began, by clients that do not, and through the gateway."""
    asyncio.run(interleaved(outcome, words, model))


async def interleaved(outcome: Outcome, words: list[tuple[str, float, float]], model: str) -> None:
    engine = made()
    lease = acquire(engine, model=model)
    engine.clock.advance(41)
    engine.lease_service.report("main", lease.id, outcome)
    began, only = engine.clock.now(), usage(engine)
    held = engine.registry.material.held["", A]
    status = {Outcome.RATE_LIMIT: 429, Outcome.TIMEOUT: 504, Outcome.BILLING: 402}[outcome]
    for how, ago, after in sorted(words, key=lambda word: word[2]):
        engine.clock.advance(max(began + after - engine.clock.now(), 0.0))
        if how == "gateway":
            used = RequestNames(
                agent="main", session="", lease=lease.id, provider="anthropic", profile=A, version=held.version, request="r",
                method="POST", route="/v1/messages", model=model,
            )  # fmt: skip
            engine.gateway_access.answered(used, ProviderAnswer(status=status, began=began - ago))
        else:
            elapsed = engine.clock.now() - (began - ago) if how == "says when" else None
            engine.lease_service.report("main", lease.id, outcome, elapsed=elapsed)
    assert usage(engine) == only


@given(st.lists(st.tuples(st.sampled_from(["x", "y", "z"]), st.floats(0, 9)), min_size=1, max_size=12))
def test_a_burst_of_several_agents_is_one_failure_for_each_and_for_all(words: list[tuple[str, float]]) -> None:
    """P3: a shared profile cools down for a minute, whoever reports it how often."""
    asyncio.run(shared_burst(words))


async def shared_burst(words: list[tuple[str, float]]) -> None:
    engine = made("x", "y", "z")
    leases = {agent: acquire(engine, agent) for agent in ("x", "y", "z")}
    engine.clock.advance(1)
    began = engine.clock.now()
    for agent, after in sorted(words, key=lambda word: word[1]):
        engine.clock.advance(max(began + after - engine.clock.now(), 0.0))
        engine.lease_service.report(agent, leases[agent].id, Outcome.RATE_LIMIT)
    met = [evidence.usage for evidence in engine.registry.evidence(("", A)).values()]
    assert all(one.error_count == 1 and one.cooldown_until <= began + 9 + MINUTE for one in met)
    assert usage(engine).error_count == (1 if len({agent for agent, _ in words}) > 1 else 0)
