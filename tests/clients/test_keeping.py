"""The loop behind every credential, in a world by script with a clock of its own."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from equabot_client import EventKind, Lease, LeaseEvent, Secret, SecretMap, errors
from equabot_client._keeping import Held, Pace, keep

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
LEASE = Lease(
    id="L1",
    provider="anthropic",
    profile="anthropic:env",
    mode="api_key",
    delivery="raw",
    secret=Secret("one"),
    headers=SecretMap({"x-api-key": "one"}),
    env=SecretMap({}),
    base_url="https://api.anthropic.com",
    issued_at=BEGAN,
    expires_at=BEGAN + timedelta(seconds=900),
    max_expires_at=BEGAN + timedelta(seconds=3600),
    credential_expires_at=None,
    renewable=True,
    version=1,
)


def lease(name: str = "L1", *, ends: float = 900, **changes: Any) -> Lease:
    return replace(LEASE, id=name, expires_at=BEGAN + timedelta(seconds=ends), **changes)


def event(kind: EventKind, of: Lease | None = None, reason: str = "") -> LeaseEvent:
    return LeaseEvent(kind=kind, lease=of, reason=reason, lease_id="L1")


class Over(Exception):
    """The script has been played."""


class Script:
    """A Line that plays streams (each a list of instants and what comes then) and answers, and notes what the loop does."""

    patience = 5.0

    def __init__(self, *streams: Sequence[tuple[float, Any]], answers: Sequence[Any] = ()) -> None:
        self.time = 0.0
        self.done: list[Any] = []
        self.held: list[Held] = []
        self._streams = [list(stream) for stream in streams]
        self._answers = list(answers)
        self._current: list[tuple[float, Any]] = []

    def play(self) -> list[Any]:
        with pytest.raises(Over):
            keep(self, rng=random.Random(7)).send(None)
        return self.done

    def now(self) -> float:
        return self.time

    async def open(self) -> None:
        if not self._streams:
            raise Over
        self.done.append("open")
        self._current = self._streams.pop(0)

    async def read(self, *, until: float) -> LeaseEvent | None:
        at, what = self._current.pop(0) if self._current else (float("inf"), None)
        self.time = max(self.time, min(at, until))
        if at > until:
            raise errors.DeadlineExceeded("silence")
        given = self._given(what)
        assert given is None or isinstance(given, LeaseEvent)
        return given

    async def acquire(self) -> Lease:
        self.done.append("acquire")
        return self._answer()

    async def renew(self, lease_id: str) -> Lease:
        self.done.append(f"renew {lease_id} at {self.time:.0f}")
        return self._answer()

    async def pause(self, seconds: float) -> None:
        self.done.append(("pause", seconds))
        self.time += seconds

    def hold(self, held: Held) -> None:
        self.held.append(held)
        self.done.append(f"hold {held.lease.id}")

    def drop(self, reason: str) -> None:
        self.done.append("drop")

    def failed(self, error: errors.EquabotError) -> None:
        self.done.append(error.reason)

    def _answer(self) -> Lease:
        if not self._answers:
            raise Over
        answer = self._given(self._answers.pop(0))
        assert isinstance(answer, Lease)
        return answer

    def _given(self, what: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        return what


GRANTED, ROTATED, RENEWED = EventKind.GRANTED, EventKind.ROTATED, EventKind.RENEWED
EXPIRING, REVOKED = EventKind.EXPIRING, EventKind.REVOKED


def test_a_stream_is_followed() -> None:
    """Every event that brings a lease replaces the one in hand."""
    script = Script(
        [(0, event(GRANTED, lease())), (9, event(ROTATED, lease(version=2))), (600, event(RENEWED, lease(ends=1500)))]
    )
    assert script.play()[:4] == ["open", "hold L1", "hold L1", "hold L1"]
    assert [held.until for held in script.held] == [900, 900, 1500]


def test_instants_of_the_broker_are_compared_with_each_other_only() -> None:
    """Clocks here and there may be years apart, and may jump: a lease lasts as long as it lasts."""
    jumped = replace(lease(), issued_at=BEGAN + timedelta(hours=5), expires_at=BEGAN + timedelta(hours=5, seconds=1500))
    script = Script([(3, event(GRANTED, lease())), (603, event(RENEWED, jumped))])
    script.play()
    assert [(held.since, held.until) for held in script.held] == [(3, 903), (3, 1503)]


@pytest.mark.parametrize("reason", ["max_ttl", "credential"])
def test_when_a_lease_is_about_to_end_the_next_stream_opens_at_once(reason: str) -> None:
    """Without a pause, and without a word about the old one, which lives on beside it."""
    script = Script(
        [(0, event(GRANTED, lease())), (600, event(EXPIRING, lease(), reason))],
        [(600, event(GRANTED, lease("L2")))],
    )
    assert script.play()[:5] == ["open", "hold L1", "hold L1", "open", "hold L2"]


def test_a_lease_that_begins_near_its_end_is_lived_out() -> None:
    """Otherwise streams would follow each other as fast as they open."""
    script = Script(
        [(0, event(GRANTED, lease(ends=900))), (1, event(EXPIRING, lease(ends=900))), (900, event(REVOKED, reason="expired"))],
        [(900, event(GRANTED, lease("L2")))],
    )
    assert script.play()[:5] == ["open", "hold L1", "hold L1", "open", "hold L2"]
    assert script.time >= 900


@pytest.mark.parametrize(
    ("reason", "dropped"), [("max_ttl", 0), ("expired", 0), ("shutting_down", 0), ("revoked", 1), ("policy", 1)]
)
def test_what_was_taken_away_is_served_no_longer(reason: str, dropped: int) -> None:
    """A lease that ended in good order is served until it expires; one that an operator revoked is not."""
    script = Script([(0, event(GRANTED, lease())), (60, event(REVOKED, reason=reason))], [(60, event(GRANTED, lease("L2")))])
    assert script.play()[:4] == ["open", "hold L1", *["drop"] * dropped, "open", "hold L2"][:4]


def test_a_broker_that_goes_away_is_sought_at_once_then_with_pauses() -> None:
    """They double, with jitter, to less than half a second: a broker that comes back is noticed soon."""
    away = errors.BrokerUnavailable("gone")
    script = Script([(0, event(GRANTED, lease())), (60, away)], *[[(0, away)]] * 9)
    done = script.play()
    assert done[:4] == ["open", "hold L1", "BROKER_UNAVAILABLE", "open"]
    pauses = [seconds for what, seconds in (step for step in done if isinstance(step, tuple))]
    assert len(pauses) == 9
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.2 <= pause <= 0.4 for pause in pauses[3:])
    assert "drop" not in done


def test_a_refusal_is_told_and_asked_again_with_longer_pauses() -> None:
    """Nothing is in hand; somebody has to mend something first."""
    script = Script(*[[(0, errors.NoUsableProfile("none"))]] * 12)
    done = script.play()
    pauses = [step[1] for step in done if isinstance(step, tuple)]
    assert done[:2] == ["open", "NO_USABLE_PROFILE"]
    assert pauses[0] > 0
    assert all(2.5 <= pause <= 5 for pause in pauses[8:])


def test_where_streams_are_unknown_leases_are_renewed_instead_for_good() -> None:
    """At about two thirds of what is left; a fresh lease when no renewal would extend it."""
    script = Script(
        [(0, errors.Unsupported("what?"))],
        answers=[lease(), lease(ends=1500), lease(ends=1500, renewable=False), lease("L2")],
    )
    done = [step for step in script.play() if not isinstance(step, tuple)]
    assert done[:4] == ["open", "acquire", "hold L1", done[3]]
    assert done[3].startswith("renew L1 at ")
    assert 540 <= float(done[3].split()[-1]) <= 630
    assert done[4:] == ["hold L1", done[5], "hold L1", "acquire", "hold L2", done[9]]
    assert done[9].startswith("renew L2")


def test_a_renewal_that_fails_is_tried_again_while_the_lease_lives() -> None:
    """What is in hand stays in hand."""
    away = errors.BrokerUnavailable("gone")
    script = Script([(0, errors.Unsupported("what?"))], answers=[lease(), away, away, lease(ends=1700)])
    done = [step for step in script.play() if not isinstance(step, tuple)]
    assert done[4] == done[6] == "BROKER_UNAVAILABLE"
    assert done[8] == "hold L1"
    assert "drop" not in done


@pytest.mark.parametrize("gone", [errors.LeaseNotFound("?"), errors.LeaseExpired("late")])
def test_a_lease_that_the_broker_does_not_know_is_replaced(gone: errors.EquabotError) -> None:
    """It was revoked meanwhile: it is served no longer, and another is asked for at once."""
    script = Script([(0, errors.Unsupported("what?"))], answers=[lease(), gone, lease("L2")])
    done = [step for step in script.play() if not isinstance(step, tuple)]
    assert done[4:7] == ["drop", "acquire", "hold L2"]


@pytest.mark.parametrize("failure", [None, errors.Unexpected("502")], ids=["silence", "not a broker's words"])
def test_something_between_that_cannot_pass_a_stream_is_got_around(failure: errors.EquabotError | None) -> None:
    """A lease without a stream bridges the time, and a stream is tried again when that lease would need renewal."""
    broken = [(0.0, failure)] if failure else []
    script = Script(broken, [(0, event(GRANTED, lease("L2")))], answers=[lease()])
    done = [step for step in script.play() if not isinstance(step, tuple)]
    assert done[:6] == ["open", failure.reason if failure else "DEADLINE_EXCEEDED", "acquire", "hold L1", "open", "hold L2"]


def test_a_stream_whose_renewal_is_overdue_is_given_up() -> None:
    """The broker renews at two thirds; at nine tenths something must be wrong with the connection."""
    script = Script([(0, event(GRANTED, lease()))], answers=[lease("L2")])
    done = [step for step in script.play() if not isinstance(step, tuple)]
    assert done[:5] == ["open", "hold L1", "DEADLINE_EXCEEDED", "acquire", "hold L2"]
    assert script.held[0].due == pytest.approx(810)


def test_rounds_that_end_at_once_are_slowed_down() -> None:
    """A broker that grants and closes in one breath does not get a storm of streams."""
    script = Script(*[[(0, event(GRANTED, lease())), (0, None)]] * 6)
    pauses = [step[1] for step in script.play() if isinstance(step, tuple)]
    assert len(pauses) == 5
    assert pauses[-1] > 0.1


def test_the_broker_may_ask_for_a_longer_pause() -> None:
    """`retry_after` is heeded, within reason."""
    pace = Pace(random.Random(1))
    assert pace.pause(errors.RateLimited("slow down", retry_after=7.0)) == 7.0
    assert pace.pause(errors.RateLimited("slow down", retry_after=1e9)) == 60.0
