"""Backoff: bounded, growing, jittered, endless, and deterministic once chance is fixed."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.backoff import delays

bases = st.floats(min_value=1e-3, max_value=60)
factors = st.floats(min_value=1, max_value=1e6)
chances = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(base=bases, factor=factors, chance=st.lists(chances, min_size=50, max_size=50))
def test_every_delay_lies_between_half_and_the_whole_of_its_ceiling(base: float, factor: float, chance: list[float]) -> None:
    """The n-th delay is in [c/2, c], c = min(base·2ⁿ, cap)."""
    cap = base * factor
    given_chance = iter(chance)
    for n, delay in enumerate(islice(delays(base=base, cap=cap, rng=lambda: next(given_chance)), 50)):
        ceiling = min(base * 2.0**n, cap)
        assert ceiling / 2 <= delay <= ceiling


@given(base=bases, factor=factors, chance=chances)
def test_with_the_same_chance_delays_never_shrink(base: float, factor: float, chance: float) -> None:
    """What varies between tries is chance alone; the ceiling only grows, and stays finite for ever."""
    found = list(islice(delays(base=base, cap=base * factor, rng=lambda: chance), 2000))
    assert all(before <= after for before, after in pairwise(found))
    assert found[-1] == pytest.approx(base * factor * (0.5 + 0.5 * chance))


def test_chance_decides_inside_the_bounds() -> None:
    """Two peers that fail together do not come back together."""
    assert list(islice(delays(base=1, cap=4, rng=lambda: 0.0), 4)) == [0.5, 1, 2, 2]
    assert list(islice(delays(base=1, cap=4, rng=lambda: 0.5), 4)) == [0.75, 1.5, 3, 3]


@pytest.mark.parametrize(("base", "cap"), [(0, 1), (-1, 1), (2, 1), (float("nan"), 1)])
def test_impossible_bounds_are_refused_at_once(base: float, cap: float) -> None:
    """A mistake shows where it is made, not at the first failure in the field."""
    with pytest.raises(ValueError, match="0 < base <= cap"):
        delays(base=base, cap=cap, rng=lambda: 0.5)
