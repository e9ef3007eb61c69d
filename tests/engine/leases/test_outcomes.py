"""What providers answer: the first of many failures counts, and only what is about the credential takes it away."""

import pytest

from equabot_broker.domain.cooldowns import MINUTE, Outcome
from equabot_broker.domain.material import HeldProfile
from equabot_broker.domain.profiles import State
from tests.fakes.engine import Engine, profile

A = "anthropic:a"


@pytest.fixture
def engine() -> Engine:
    made = Engine()
    made.put(profile(A))
    return made


def held(engine: Engine) -> HeldProfile:
    found = engine.registry.find("main", A)
    assert found is not None
    return found[1].held


def state(engine: Engine) -> State:
    found = engine.registry.find("main", A)
    assert found is not None
    return found[1].standing.state


@pytest.mark.parametrize("outcome", [Outcome.RATE_LIMIT, Outcome.TIMEOUT])
def test_older_failure_changes_nothing(engine: Engine, outcome: Outcome) -> None:
    """P3: and what may have begun before it, as far as is known."""
    now = engine.clock.now()
    engine.outcomes.note(held(engine), outcome, agent="main", began=now - 1)
    engine.outcomes.note(held(engine), outcome, agent="main", began=now - 1)
    assert engine.registry.usage(("", A)).error_count == 1
    engine.outcomes.note(held(engine), outcome, agent="main")
    engine.outcomes.note(held(engine), outcome, agent="main", earliest=now)
    assert engine.registry.usage(("", A)).error_count == 1
    engine.outcomes.note(held(engine), outcome, agent="main", began=now)
    assert engine.registry.usage(("", A)).error_count == 2


def test_refused_credential_always_counts(engine: Engine) -> None:
    """However long its request was under way."""
    now = engine.clock.now()
    engine.outcomes.note(held(engine), Outcome.RATE_LIMIT, agent="main")
    engine.outcomes.note(held(engine), Outcome.AUTH, agent="main", began=now - 100)
    assert state(engine) is State.REJECTED


def test_unsure_refusal_causes_a_cooldown(engine: Engine) -> None:
    """And no more than one for all that were under way."""
    now = engine.clock.now()
    for _ in range(5):
        engine.outcomes.note(held(engine), Outcome.AUTH, agent="main", began=now - 1, sure=False)
    usage = engine.registry.usage(("", A))
    assert (state(engine), usage.cooldown_until) == (State.OK, now + MINUTE)


def test_malformed_request_changes_nothing(engine: Engine) -> None:
    """Neither for nor against."""
    before = engine.registry.usage(("", A))
    engine.outcomes.note(held(engine), Outcome.FORMAT, agent="main")
    assert engine.registry.usage(("", A)) == before
