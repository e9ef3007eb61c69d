"""What a session wants is remembered, within bounds, each agent's apart."""

import pytest

from equabot_broker.engine.profiles import sessions as module
from equabot_broker.engine.profiles.sessions import Sessions
from tests.fakes.state import MemoryStateStore

ONE, TWO = ("main", "s1", "p"), ("main", "s2", "p")


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


def test_a_pin_outlives_the_process(store: MemoryStateStore) -> None:
    """It is stored when `pin` returns, and its removal when `unpin` does."""
    Sessions(store=store, pins={}).pin(ONE, "p:a", strict=True)
    store.crash()
    again = Sessions(store=store, pins=store.load().pins)
    assert again.pinned(ONE) == ("p:a", True)
    again.unpin(ONE)
    store.crash()
    assert store.load().pins == {}
    assert again.pinned(ONE) == ("", False)


def test_choice_is_not_stored(store: MemoryStateStore) -> None:
    """It is remembered for each program that the session runs."""
    sessions = Sessions(store=store, pins={})
    assert sessions.served(ONE, "") == ("", "")
    sessions.serve(ONE, "", first="p:a", last="p:b")
    assert sessions.served(ONE, "") == ("p:a", "p:b")
    assert sessions.served(ONE, "claude-code") == ("", "")
    assert sessions.served(TWO, "") == ("", "")
    assert store.flushes == 0


def test_unpin_without_a_pin_writes_nothing(store: MemoryStateStore) -> None:
    """Idempotent."""
    Sessions(store=store, pins={}).unpin(ONE)
    assert store.flushes == 0


def test_limit_of_sessions_is_by_agent(store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that invents sessions pushes out its own oldest ones, also on disk, and nobody else's."""
    monkeypatch.setattr(module, "_KEPT", 3)
    sessions = Sessions(store=store, pins={("quiet", "s", "p"): ("p:q", False)})
    sessions.serve(("quiet", "s", "p"), "", first="p:q", last="p:q")
    for n in range(10):
        sessions.pin(("main", f"s{n}", "p"), f"p:{n}", strict=False)
        sessions.serve(("main", f"s{n}", "p"), "", first=f"p:{n}", last=f"p:{n}")
    assert set(store.load().pins) == {("main", f"s{n}", "p") for n in (7, 8, 9)}
    assert [sessions.pinned(("main", f"s{n}", "p"))[0] for n in (6, 7, 9)] == ["", "p:7", "p:9"]
    assert [sessions.served(("main", f"s{n}", "p"), "")[0] for n in (6, 7, 9)] == ["", "p:7", "p:9"]
    assert sessions.pinned(("quiet", "s", "p")) == ("p:q", False)
    assert sessions.served(("quiet", "s", "p"), "") == ("p:q", "p:q")


def test_a_session_in_use_stays(store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest means used last, not begun last."""
    monkeypatch.setattr(module, "_KEPT", 2)
    sessions = Sessions(store=store, pins={})
    for key in (ONE, TWO, ONE, ("main", "s3", "p")):
        sessions.serve(key, "", first="p:a", last="p:a")
    assert sessions.served(ONE, "")[0] == "p:a"
    assert sessions.served(TWO, "")[0] == ""
