"""A limit on one model is no limit on the others."""

import pytest

from equabot_broker.domain.answers import ProviderAnswer
from equabot_broker.domain.cooldowns import MINUTE, MODELS_MOST, Outcome
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.policies import Delivery
from equabot_broker.engine.leases.gateway_access import RequestNames
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.engine.leases.streams import NoticeKind
from tests.fakes.engine import ANYTHING, Engine, profile

A, B = "anthropic:a", "anthropic:b"
SCOPED = [Outcome.RATE_LIMIT, Outcome.TIMEOUT]


@pytest.fixture
def engine() -> Engine:
    made = Engine(order={"anthropic": (A, B)}, deliveries=frozenset(Delivery))
    made.put(profile(A), profile(B))
    return made


def acquire(engine: Engine, model: str = "", agent: str = "main", delivery: str = "raw") -> Lease:
    return engine.lease_service.acquire(agent, LeaseRequest(provider="anthropic", model=model, delivery=delivery)).lease


def holding(engine: Engine, agent: str = "main", model: str = "") -> Lease:
    """A lease on A that does not move, as its holder has named A."""
    return engine.lease_service.acquire(agent, LeaseRequest(profile=A, model=model)).lease


def answered(engine: Engine, lease: Lease, status: int, model: str) -> None:
    held = engine.registry.material.held["", A]
    used = RequestNames(
        agent=lease.agent, session="", lease=lease.id, provider="anthropic", profile=A, version=held.version, request="r",
        method="POST", route="/v1/messages", model=model,
    )  # fmt: skip
    engine.gateway_access.answered(used, ProviderAnswer(status=status, began=engine.clock.now()))


@pytest.mark.parametrize("outcome", SCOPED)
async def test_a_limit_on_one_model_leaves_the_others(engine: Engine, outcome: Outcome) -> None:
    """P18: the report names the model, or the lease does; a request for no model in particular is served as before."""
    lease = acquire(engine)
    assert engine.lease_service.report("main", lease.id, outcome, model="opus")
    other = holding(engine, model="haiku")
    engine.lease_service.report("main", other.id, outcome)
    engine.lease_service.report("main", other.id, outcome)
    assert {model: acquire(engine, model).profile for model in ("opus", "haiku", "sonnet", "")} == {
        "opus": B, "haiku": B, "sonnet": A, "": A,
    }  # fmt: skip
    assert engine.registry.usage(("", A)).error_count == 0
    rows = {row.id: row for row in engine.profile_statuses.of("main", "anthropic")}
    until = engine.clock.now() + MINUTE
    assert rows[A].model_cooldowns == {"opus": until, "haiku": until}
    assert (rows[A].cooldown_until, rows[A].next, rows[A].usable) == (0.0, True, True)
    assert [row.id for row in engine.profile_statuses.of("main", "anthropic", model="opus") if row.next] == [B]
    engine.clock.advance(MINUTE)
    engine.expiry.turn()
    assert acquire(engine, "opus").profile == A


async def test_failure_without_a_model_applies_to_the_profile(engine: Engine) -> None:
    """P18: for every model."""
    engine.lease_service.report("main", acquire(engine).id, Outcome.RATE_LIMIT)
    assert {acquire(engine, model).profile for model in ("opus", "")} == {B}


@pytest.mark.parametrize("outcome", [Outcome.AUTH, Outcome.BILLING])
async def test_account_failure_applies_to_every_model(engine: Engine, outcome: Outcome) -> None:
    """P18: a refused credential and an empty account are the same for all of them."""
    engine.lease_service.report("main", acquire(engine, "opus").id, outcome, model="opus")
    assert {acquire(engine, model).profile for model in ("opus", "haiku", "")} == {B}


async def test_failures_of_a_model_in_a_row_cost_more(engine: Engine) -> None:
    """P18: 1, 5, 25, 60 minutes, each model on its own; a success clears that model alone."""
    lease, waits = holding(engine), []
    for _ in range(5):
        engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT, model="opus", elapsed=0.0)
        waits.append((engine.registry.usage(("", A)).model_until("opus") - engine.clock.now()) / MINUTE)
        engine.clock.advance(1)
    assert waits == [1, 5, 25, 60, 60]
    engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT, model="haiku", elapsed=0.0)
    engine.lease_service.report("main", lease.id, Outcome.OK, model="opus", elapsed=0.0)
    assert set(engine.registry.usage(("", A)).models) == {"haiku"}


async def test_the_models_that_are_remembered_are_bounded(engine: Engine) -> None:
    """P18: callers name them as they like; those that end first go."""
    lease = holding(engine)
    for n in range(3 * MODELS_MOST):
        engine.lease_service.report("main", lease.id, Outcome.RATE_LIMIT, model=f"m{n}", retry_after=100.0 + n, elapsed=0.0)
    models = engine.registry.usage(("", A)).models
    assert set(models) == {f"m{n}" for n in range(2 * MODELS_MOST, 3 * MODELS_MOST)}


async def test_a_stream_moves_for_the_sake_of_its_model(engine: Engine) -> None:
    """P18: at once, and the streams for other models stay."""
    streams = {
        model: engine.lease_service.stream("main", LeaseRequest(provider="anthropic", model=model))
        for model in ("opus", "haiku")
    }
    with streams["opus"] as opus, streams["haiku"] as haiku:
        for stream in (opus, haiku):
            assert (await stream.next()).kind is NoticeKind.GRANTED
        engine.lease_service.report("main", acquire(engine).id, Outcome.RATE_LIMIT, model="opus")
        notice = await opus.next()
        assert notice.kind is NoticeKind.ROTATED
        assert notice.grant is not None
        assert notice.grant.lease.profile == B
        assert {lease.model: lease.profile for lease in engine.lease_admin.active() if lease.streaming} == {
            "opus": B,
            "haiku": A,
        }


async def test_through_the_gateway_a_limit_is_of_the_model_in_the_path_or_of_the_lease(engine: Engine) -> None:
    """P18: the next request for that model goes with the next profile, and the lease's others stay."""
    lease = acquire(engine, delivery="brokered")
    answered(engine, lease, 429, "opus")
    assert engine.gateway_leases.resolve(lease, model="haiku")[1].profile.id == A
    assert engine.gateway_leases.resolve(lease, model="opus")[1].profile.id == B
    answered(engine, lease, 200, "opus")
    assert engine.registry.usage(("", A)).models == {}


async def test_another_agent_confirms_a_limit_of_the_same_model_alone() -> None:
    """P18: two agents that met limits of different models have not met the same."""
    engine = Engine(agents=dict.fromkeys(("x", "y", "z"), ANYTHING), order={"anthropic": (A, B)})
    engine.put(profile(A), profile(B))
    leases = {agent: holding(engine, agent) for agent in ("x", "y")}
    engine.lease_service.report("x", leases["x"].id, Outcome.RATE_LIMIT, model="opus")
    engine.lease_service.report("y", leases["y"].id, Outcome.RATE_LIMIT, model="haiku")
    assert {acquire(engine, model, "z").profile for model in ("opus", "haiku", "")} == {A}
    assert [acquire(engine, model, "x").profile for model in ("opus", "haiku")] == [B, A]
    engine.lease_service.report("y", leases["y"].id, Outcome.RATE_LIMIT, model="opus")
    assert [acquire(engine, model, "z").profile for model in ("opus", "haiku")] == [B, A]


async def test_it_outlives_a_restart_and_a_jump_of_the_clock(engine: Engine) -> None:
    """P18: as every cooldown does."""
    engine.lease_service.report("main", acquire(engine).id, Outcome.RATE_LIMIT, model="opus")
    until = engine.registry.usage(("", A)).model_until("opus")
    engine.store.flush()
    again = Engine(order={"anthropic": (A, B)}, store=engine.store, clock=engine.clock)
    again.put(profile(A), profile(B))
    assert again.registry.usage(("", A)).model_until("opus") == until
    assert [acquire(again, model).profile for model in ("opus", "haiku")] == [B, A]
    again.registry.wall_moved(0.0)
    assert again.registry.usage(("", A)).model_until("opus") == until


async def test_evidence_of_a_model_ends_with_its_success() -> None:
    """P18: an agent that is served that model again is not kept from it, and stays kept from the other."""
    engine = Engine(agents=dict.fromkeys(("x", "y"), ANYTHING), order={"anthropic": (A, B)})
    engine.put(profile(A), profile(B))
    lease = holding(engine, "x")
    for model in ("opus", "haiku"):
        engine.lease_service.report("x", lease.id, Outcome.RATE_LIMIT, model=model)
    engine.lease_service.report("x", lease.id, Outcome.OK, model="haiku")
    assert [acquire(engine, model, "x").profile for model in ("opus", "haiku")] == [B, A]
    (own,) = engine.registry.evidence(("", A)).values()
    assert set(own.usage.models) == {"opus"}
