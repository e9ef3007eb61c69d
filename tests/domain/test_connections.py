"""Which connection ends when a listener has too many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.connections import ConnectionTable, peer_of


def test_peer_above_its_limit_loses_its_idlest_connection() -> None:
    """S3: the new one is accepted; the one that was silent for longest goes."""
    table = ConnectionTable(most=10, most_per_peer=2)
    assert table.add("a", "192.0.2.1") is None
    assert table.add("b", "192.0.2.1") is None
    table.touch("a")
    assert table.add("c", "192.0.2.1") == "b"
    assert table.add("probe", "192.0.2.2") is None
    table.remove("a")
    table.remove("a")
    table.touch("a")
    assert table.add("d", "192.0.2.1") is None
    assert len(table) == 3


def test_a_full_listener_ends_one_of_the_peer_that_has_most() -> None:
    """S3: neither the newcomer nor a peer with one connection pays for a peer with many."""
    table = ConnectionTable(most=4, most_per_peer=3)
    for connection, address in (("quiet", "192.0.2.9"), ("a", "192.0.2.1"), ("b", "192.0.2.1"), ("c", "192.0.2.1")):
        assert table.add(connection, address) is None
    assert table.add("probe", "192.0.2.2") == "a"
    assert len(table) == 4


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("no address", "no address", True),
    ],
)
def test_one_host_is_one_peer(address: str, other: str, same: bool) -> None:
    """S3: a host that changes the lower half of its IPv6 address stays the same peer."""
    assert (peer_of(address) == peer_of(other)) is same


@given(st.lists(st.tuples(st.sampled_from("atr"), st.integers(0, 30), st.integers(0, 4)), max_size=200))
def test_no_bound_is_ever_passed(steps: list[tuple[str, int, int]]) -> None:
    """S3: whatever comes and goes, in all and per peer; what is counted is what was added and has not ended."""
    table = ConnectionTable(most=8, most_per_peer=3)
    held: dict[int, int] = {}
    for step, connection, peer in steps:
        if step == "a" and connection not in held:
            ended = table.add(connection, f"192.0.2.{peer}")
            if ended is not None:
                assert ended in held
                held = {one: its for one, its in held.items() if one != ended}
            held[connection] = peer
        elif step == "t":
            table.touch(connection)
        elif step == "r":
            table.remove(connection)
            held.pop(connection, None)
        assert len(table) == len(held) <= 8
        assert set(table) == set(held)
        assert all(list(held.values()).count(peer) <= 3 for peer in range(5))
