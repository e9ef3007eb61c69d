"""Lease ids as people write them."""

from hypothesis import given
from hypothesis import strategies as st

from equabot_cli.lease_naming import shortened

ids = st.text("0123456789abcdef", min_size=32, max_size=32)


@given(st.lists(ids, unique=True, max_size=8), st.sets(st.integers(0, 255), max_size=8))
def test_a_short_id_is_one_leases_alone(random: list[str], alike: set[int]) -> None:
    """C1: it is the beginning of its own id and of no other one, also of leases that were granted at one time."""
    living = [*random, *(f"01a3185c5000{'0' * 18}{n:02x}" for n in alike)]
    shown = shortened(living)
    assert set(shown) == set(living)
    for lease_id, short in shown.items():
        assert [other for other in set(living) if other.startswith(short)] == [lease_id]
        assert len(short) >= 12


def test_one_lease_needs_twelve_characters() -> None:
    """C1: those that say when it was granted: one to come does not begin so."""
    assert shortened(["01a3185c50003c4b5ab50bae7ceb83a0"]) == {"01a3185c50003c4b5ab50bae7ceb83a0": "01a3185c5000"}
