"""What was met with another credential is not held against this one."""

import pytest

from equabot_broker.domain.cooldowns import Outcome
from equabot_broker.domain.errors import NoUsableProfile
from equabot_broker.domain.leases import Lease
from equabot_broker.domain.provider import Mode
from equabot_broker.engine.leases.messages import LeaseRequest
from tests.fakes.engine import ANYTHING, Engine, profile

A = "anthropic:a"


def acquire(engine: Engine, agent: str = "main") -> Lease:
    return engine.lease_service.acquire(agent, LeaseRequest(profile=A)).lease


def disabled(engine: Engine) -> None:
    """The account is empty, and has been met so twice."""
    lease = acquire(engine)
    for _ in range(2):
        engine.lease_service.report("main", lease.id, Outcome.BILLING)
        engine.clock.advance(61)
        engine.expiry.turn()
    with pytest.raises(NoUsableProfile):
        acquire(engine)


def restarted(engine: Engine) -> Engine:
    engine.store.flush()
    return Engine(store=engine.store, clock=engine.clock, required=("anthropic",))


async def test_a_new_key_ends_a_billing_disable() -> None:
    """P4: at once, and health says so."""
    engine = Engine(required=("anthropic",))
    engine.put(profile(A, "old"))
    disabled(engine)
    assert engine.readiness.status("readiness") is False
    engine.put(profile(A, "new"))
    assert acquire(engine).profile == A
    assert engine.readiness.status("readiness") is True
    assert engine.registry.usage(("", A)).clean


async def test_recreated_key_is_a_new_key() -> None:
    """P4: where it is another one. The same key again is the same account: that disable goes on."""
    engine = Engine()
    engine.put(profile(A, "old"))
    disabled(engine)
    engine.put()
    engine.put(profile(A, "old"))
    with pytest.raises(NoUsableProfile):
        acquire(engine)
    engine.put()
    engine.put(profile(A, "new"))
    assert acquire(engine).profile == A


@pytest.mark.parametrize("secret", ["old", "new"])
async def test_a_restart_ends_the_disable_of_the_old_key_alone(secret: str) -> None:
    """P4: what the state remembers is of the key that it was met with."""
    engine = Engine()
    engine.put(profile(A, "old"))
    disabled(engine)
    again = restarted(engine)
    again.put(profile(A, secret))
    if secret == "new":
        assert acquire(again).profile == A
    else:
        with pytest.raises(NoUsableProfile):
            acquire(again)


async def test_a_new_key_ends_cooldowns_and_what_single_agents_met() -> None:
    """P4: for every agent, and for every model."""
    engine = Engine(agents=dict.fromkeys(("x", "y"), ANYTHING))
    engine.put(profile(A, "old"))
    lease = acquire(engine, "x")
    engine.lease_service.report("x", lease.id, Outcome.RATE_LIMIT, model="opus", retry_after=900.0)
    engine.lease_service.report("x", lease.id, Outcome.RATE_LIMIT, retry_after=900.0)
    assert engine.registry.evidence(("", A))
    engine.put(profile(A, "new"))
    assert not engine.registry.evidence(("", A))
    assert engine.profile_statuses.of("x", "anthropic")[0].cooldown_until == 0


async def test_another_token_of_a_login_is_the_same_account() -> None:
    """P4: tokens come and go by themselves; a disable that ended with each would be no disable."""
    engine = Engine()
    engine.put(profile(A, "old", mode=Mode.OAUTH))
    disabled(engine)
    engine.put(profile(A, "new", mode=Mode.OAUTH))
    with pytest.raises(NoUsableProfile):
        acquire(engine)


async def test_a_refusal_says_when_it_ends() -> None:
    """P4: in its words, and for programs in `retry_after`; the list says the same instant."""
    engine = Engine()
    engine.put(profile(A, "old"))
    disabled(engine)
    with pytest.raises(NoUsableProfile) as caught:
        acquire(engine)
    until = engine.registry.usage(("", A)).disabled_until
    assert caught.value.retry_after == until - engine.clock.now()
    assert "equabot profile clear anthropic:a" in caught.value.message
    (row,) = engine.profile_statuses.of("main", "anthropic")
    assert (row.retry_at, row.usable) == (until, False)


async def test_permanent_refusal_has_a_remedy() -> None:
    """P4: and names no time."""
    engine = Engine()
    engine.put(profile(A, "old", expires_at=engine.clock.now() - 5))
    with pytest.raises(NoUsableProfile) as caught:
        acquire(engine)
    assert caught.value.retry_after is None
    assert "replace it in fake" in caught.value.message
