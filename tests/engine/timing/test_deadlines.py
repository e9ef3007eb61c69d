"""An agenda: the last word on a key counts, the soonest comes first, and what is over costs nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from equabot_broker.domain.credentials import NEVER
from equabot_broker.engine.timing.deadlines import Deadlines

keys = st.sampled_from(["a", "b", "c", "d"])
instants = st.integers(0, 20).map(float)


class AgendaIsADict(RuleBasedStateMachine):
    """Whatever is planned, moved and forgotten: it says what a plain mapping from key to instant would say."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines: Deadlines[str] = Deadlines()
        self.model: dict[str, float] = {}
        self.woken = 0
        self.deadlines.wake = self.wake

    def wake(self) -> None:
        self.woken += 1

    @rule(key=keys, at=instants)
    def plan(self, key: str, at: float) -> None:
        before, self.woken = min(self.model.values(), default=NEVER), 0
        self.deadlines.plan(key, at)
        self.model[key] = at
        assert self.woken == (at < before)

    @rule(key=keys)
    def never(self, key: str) -> None:
        self.deadlines.plan(key, NEVER)
        self.model.pop(key, None)

    @rule(key=keys)
    def forget(self, key: str) -> None:
        self.deadlines.forget(key)
        self.model.pop(key, None)

    @rule(now=instants)
    def due(self, now: float) -> None:
        expected = sorted((at, key) for key, at in self.model.items() if at <= now)
        assert self.deadlines.due(now) == [key for _, key in expected]
        for _, key in expected:
            del self.model[key]

    @rule()
    def clear(self) -> None:
        self.deadlines.clear()
        self.model.clear()

    @invariant()
    def same(self) -> None:
        assert self.deadlines.next() == min(self.model.values(), default=NEVER)


TestAgendaIsADict = AgendaIsADict.TestCase


@given(st.lists(st.tuples(st.integers(0, 1_000_000), st.integers(0, 3)), max_size=50))
def test_due_keys_come_soonest_first(plans: list[tuple[int, int]]) -> None:
    """Each once, however often it was moved."""
    deadlines: Deadlines[str] = Deadlines()
    for at, key in plans:
        deadlines.plan(str(key), float(at))
    last = {str(key): at for at, key in plans}
    assert deadlines.due(NEVER) == [key for _, key in sorted((at, key) for key, at in last.items())]
    assert deadlines.due(NEVER) == []


@pytest.mark.parametrize("end", ["forget", "move"])
def test_it_does_not_grow_without_bound(end: str) -> None:
    """A hundred thousand comings and goings leave nothing behind; nor does one key that is moved as often."""
    deadlines: Deadlines[str] = Deadlines()
    deadlines.plan("always first", 0.0)
    for n in range(100_000):
        deadlines.plan(f"{n}" if end == "forget" else "one", 1e6 + n)
        if end == "forget":
            deadlines.forget(f"{n}")
        assert len(deadlines) < 1100
    assert deadlines.due(0.0) == ["always first"]
    assert deadlines.next() == (NEVER if end == "forget" else 1e6 + 99_999)


def test_many_living_keys_cost_twice_their_number_at_most() -> None:
    """And after all of them went, next to nothing, though nobody planned anything since."""
    deadlines: Deadlines[str] = Deadlines()
    for turn in range(5):
        for n in range(10_000):
            deadlines.plan(f"{n}", 1000.0 + turn)
    assert len(deadlines) <= 2 * 10_000 + 1024
    for n in range(10_000):
        deadlines.forget(f"{n}")
    assert len(deadlines) <= 1024
    assert deadlines.next() == NEVER
