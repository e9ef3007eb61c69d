"""Refusals that keep coming are kept as sums: however many there are, few records, and no refusal uncounted."""

import asyncio
import logging
from typing import Any

import pytest

from equabot_broker.telemetry.broker_events import CallerRefused
from equabot_broker.telemetry.event_log import log_event
from equabot_broker.telemetry.events import Event, Events, Summed, declared_events
from equabot_broker.telemetry.folding import AT_ONCE, OTHERS, RefusalFolding
from equabot_broker.telemetry.gateway_events import GatewayRefused
from equabot_broker.telemetry.lease_events import LeaseDenied, LeaseGranted, OutcomeReported, RenewalDenied
from tests.fakes.clock import FakeClock

DENIED = LeaseDenied(agent="main", provider="anthropic", reason="NO_USABLE_PROFILE", session="talk")
STRANGER = GatewayRefused(
    agent="", provider="anthropic", lease="", method="POST", route="/v1/messages", status=401, reason="TOKEN_MISSING"
)
GRANTED = LeaseGranted(agent="main", provider="anthropic", profile="anthropic:a", delivery="raw", seconds=9.0)


class Kept:
    """What goes on to the logs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.folding = RefusalFolding(self.events.append, now=self.clock.now, steady=self.clock.steady)

    def comes(self, event: Event, times: int = 1) -> None:
        for _ in range(times):
            self.folding.record(event)

    def sums(self) -> list[Summed]:
        return [event for event in self.events if isinstance(event, Summed)]


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.mark.parametrize(
    "event",
    [
        DENIED,
        STRANGER,
        RenewalDenied(agent="main", lease="x", reason="LEASE_NOT_FOUND"),
        CallerRefused(reason="UNAUTHENTICATED", words="show who you are"),
        OutcomeReported(agent="main", provider="anthropic", profile="anthropic:a", outcome="auth"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_flood_is_a_few_records_and_one_sum(kept: Kept, event: Event) -> None:
    """S8: the first ones at once; then one record a window, and the count is exact."""
    kept.comes(event, 5_000)
    assert kept.events == [event] * AT_ONCE
    kept.clock.advance(10.0)
    kept.folding.emit_due()
    (summed,) = kept.sums()
    assert (summed.count, summed.seconds) == (5_000 - AT_ONCE, 10.0)
    assert summed.agent == getattr(event, "agent", "")
    assert summed.reason == (getattr(event, "reason", "") or getattr(event, "outcome", ""))


def test_a_sum_says_what_its_events_have_in_common(kept: Kept) -> None:
    """And when the first and the last one was."""
    kept.comes(DENIED, AT_ONCE + 2)
    kept.clock.advance(5.0)
    kept.comes(LeaseDenied(agent="main", provider="openai", reason="NO_USABLE_PROFILE"))
    kept.folding.close()
    assert kept.sums() == [
        Summed(
            of="denied", agent="main", reason="NO_USABLE_PROFILE", provider="", profile="", count=3, seconds=5.0,
            first="2027-01-15T08:00:00.000Z", last="2027-01-15T08:00:05.000Z",
        )
    ]  # fmt: skip


def test_a_day_of_denials_is_little(kept: Kept) -> None:
    """S8, K5: windows grow while it goes on. A pod that waits for its Secret does not push other records out of the node."""
    for _ in range(24 * 3600):
        kept.comes(DENIED)
        kept.clock.advance(1.0)
    kept.folding.close()
    assert len(kept.events) < 310
    singles = len(kept.events) - len(kept.sums())
    assert singles + sum(summed.count for summed in kept.sums()) == 24 * 3600


def test_callers_and_reasons_are_told_apart(kept: Kept) -> None:
    """Who floods hides nobody else, and nothing else of its own."""
    kept.comes(DENIED, 1_000)
    others = [
        LeaseDenied(agent="other", provider="anthropic", reason="NO_USABLE_PROFILE"),
        LeaseDenied(agent="main", provider="anthropic", reason="POLICY_DENIED"),
        STRANGER,
    ]
    for event in others:
        kept.comes(event)
    assert kept.events[AT_ONCE:] == others


def test_nothing_but_refusals_is_summed(kept: Kept) -> None:
    """Grants, renewals, ends, uses and operators' acts are recorded one by one, however many there are."""
    kept.comes(GRANTED, 1_000)
    assert kept.events == [GRANTED] * 1_000


def test_what_gives_a_credential_is_never_summed_and_every_refusal_is() -> None:
    """S8: a new kind of refusal is summed as well; and what is summed is in the audit log under a kind of its own."""
    kinds = declared_events()
    assert [kind for kind in kinds if kind.granting and kind.summed] == []
    assert [kind for kind in kinds if kind.summed and not kind.audit_kind] == []
    refusals = {kind for kind in kinds if kind.__name__.endswith(("Denied", "Refused"))}
    assert {kind for kind in kinds if kind.summed} == refusals | {OutcomeReported}


def test_who_is_calm_for_a_while_is_told_of_at_once_again(kept: Kept) -> None:
    """After ten minutes it is as if nothing had been."""
    kept.comes(DENIED, 1_000)
    kept.clock.advance(10.0)
    kept.folding.emit_due()
    kept.clock.advance(600.0)
    kept.folding.emit_due()
    assert kept.folding._runs == {}
    kept.events.clear()
    kept.comes(DENIED, AT_ONCE)
    assert kept.events == [DENIED] * AT_ONCE


def test_memory_is_bounded(kept: Kept) -> None:
    """Whatever callers call themselves: beyond 512 they are summed together, and still counted."""
    for number in range(2_000):
        kept.comes(LeaseDenied(agent=f"agent-{number}", provider="", reason="POLICY_DENIED"))
    assert len(kept.folding._runs) == 513
    kept.folding.close()
    (summed,) = kept.sums()
    assert (summed.agent, summed.count) == (OTHERS, 2_000 - 512 - AT_ONCE)


async def test_a_sum_comes_although_no_more_refusals_do(kept: Kept) -> None:
    """Nobody has to come again for it; and while nothing waits, nothing wakes up."""
    running = asyncio.create_task(kept.folding.run(kept.clock.sleep))
    await kept.clock.elapse(60.0)
    assert kept.clock.sleepers == 0
    kept.comes(DENIED, AT_ONCE + 512)
    await kept.clock.elapse(11.0)
    assert [summed.count for summed in kept.sums()] == [512]
    assert kept.clock.sleepers == 0
    running.cancel()


def test_metrics_hear_of_each(kept: Kept) -> None:
    """They stand after the fold, not behind it."""
    counted: list[Event] = []
    events = Events(kept.folding.record, counted.append)
    for _ in range(100):
        events.emit(DENIED)
    assert (len(kept.events), len(counted)) == (AT_ONCE, 100)


def test_the_log_says_how_many_more(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """In words, and with the fields; a sum of what is not in the log at this level is not, either."""
    caplog.set_level(logging.INFO, "equabot.events")
    kept.folding.sinks[:] = [log_event]
    kept.comes(DENIED, AT_ONCE + 512)
    kept.comes(RenewalDenied(agent="main", lease="x", reason="LEASE_NOT_FOUND"), 100)
    kept.clock.advance(10.0)
    kept.folding.emit_due()
    assert [line.getMessage() for line in caplog.records] == ["lease denied"] * AT_ONCE + ["denied: and 512 more in 10 s"]
    said: dict[str, Any] = vars(caplog.records[-1])
    assert (said["agent"], said["reason"], said["count"]) == ("main", "NO_USABLE_PROFILE", 512)
