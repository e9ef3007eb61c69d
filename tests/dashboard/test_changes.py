"""What the page notes between two answers of the broker."""

from datetime import UTC, datetime
from itertools import count
from typing import Any

from equabot_broker.dashboard.broker_view import BrokerReading
from equabot_broker.dashboard.changes import BrokerChanges, NotedChange
from equabot_client import Profile
from equabot_client.admin import AgentStatus, LeaseSummary

AT = datetime(2026, 12, 1, tzinfo=UTC)
NUMBERS = count(1)


def reading(
    *, states: dict[str, str] | None = None, version: int = 1, leases: tuple[LeaseSummary, ...] = (), **suspended: bool
) -> BrokerReading:
    """An answer in which each agent sees the profile `acme:x` in a state of its own."""
    return BrokerReading(
        profiles={agent: [profile(state, version)] for agent, state in (states or {}).items()},
        agents=[agent(name, suspended=value) for name, value in suspended.items()],
        leases=leases,
        sources=(),
        findings=(),
    )


def profile(state: str, version: int) -> Profile:
    texts: dict[str, Any] = dict.fromkeys(("mode", "source", "reason", "label", "disabled_reason", "base_url"), "")
    times: dict[str, Any] = dict.fromkeys(("expires_at", "cooldown_until", "disabled_until", "last_used_at"))
    flags: dict[str, Any] = dict.fromkeys(("next", "usable", "pinned"), False)
    return Profile(id="acme:x", provider="acme", state=state, version=version, **texts, **times, **flags)


def agent(name: str, *, suspended: bool) -> AgentStatus:
    return AgentStatus(
        agent=name, suspended=suspended, since=None, reason="", leases=0, streams=0, configured=True,
        providers=(), profiles=(), deliveries=(), max_leases=1,
    )  # fmt: skip


def leases(number: int, agent: str = "main") -> tuple[LeaseSummary, ...]:
    """So many new ones."""
    texts: dict[str, Any] = {"session": "", "provider": "acme", "profile": "acme:x", "delivery": "raw"}
    times: dict[str, Any] = dict.fromkeys(("issued_at", "expires_at", "max_expires_at"), AT)
    return tuple(LeaseSummary(id=str(next(NUMBERS)), agent=agent, streaming=False, **texts, **times) for _ in range(number))


def noted(*answers: tuple[float, BrokerReading]) -> list[str]:
    """What the page lists after these answers, newest first."""
    changes = BrokerChanges()
    for now, answer in answers:
        changes.hear(answer, now=now)
    return [f"{one['subject']} {one['text']}" for one in changes.view()["changes"]]


def test_the_first_answer_changes_nothing() -> None:
    assert noted((0, reading(states={"main": "ok"}, leases=leases(3)))) == []


def test_a_profile_that_comes_changes_and_goes() -> None:
    answers = (reading(), reading(states={"main": "ok"}), reading(states={"main": "expiring"}, version=2), reading())
    assert noted(*enumerate(answers)) == [
        "acme:x was removed",
        "acme:x ok → expiring",
        "acme:x was rotated",
        "acme:x is new: ok",
    ]


def test_the_worst_state_that_an_agent_sees_counts() -> None:
    """Whichever agent it is."""
    for agents in (("main", "other"), ("other", "main")):
        before, after = (
            reading(states=dict(zip(agents, states, strict=True))) for states in (("ok", "ok"), ("rejected", "ok"))
        )
        assert noted((0, before), (1, after)) == ["acme:x ok → rejected"]


def test_a_busy_agent_hides_no_other_change() -> None:
    """Its leases are one entry, with their sum and the time of the last; after a minute without one another entry begins."""
    answers = [(float(at), reading(leases=leases(2), main=at >= 40)) for at in range(100)]
    shown = noted(*answers)
    assert shown == [
        "agent main: 198 leases of acme:x granted",
        "agent main: 198 leases of acme:x ended",
        "agent main was suspended",
    ]
    later = noted(*answers, (300.0, reading(leases=leases(1), main=True)))
    assert later[:2] == ["agent main: 1 lease of acme:x granted", "agent main: 2 leases of acme:x ended"]


def test_leases_are_counted_for_each_agent() -> None:
    after = reading(leases=leases(1) + leases(2, "other"))
    assert sorted(noted((0, reading()), (1, after))) == [
        "agent main: 1 lease of acme:x granted",
        "agent other: 2 leases of acme:x granted",
    ]


def test_what_is_kept_has_a_bound() -> None:
    changes = BrokerChanges()
    for number in range(200):
        changes.note(NotedChange(kind="plain", subject="acme:x", text=f"change {number}"), now=float(number))
    shown = changes.view()["changes"]
    assert [len(shown), shown[0]["text"]] == [50, "change 199"]
