"""Ingesting: what the sources hold is in effect, numbered, and told of; a source that dies takes nothing else down."""

import asyncio
import errno
import re
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.material import (
    SourceEvent,
    SourceFault,
    SourceState,
    SourceUnavailable,
    Unit,
    UnitChanged,
    UnitRemoved,
    UnitsListed,
)
from equabot_broker.domain.profiles import State
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.telemetry.credential_events import (
    ProfilesChanged,
    SourceDoubted,
    SourceRecovered,
    SourceStale,
    SourceSynced,
)
from equabot_broker.telemetry.incidents import counts
from tests.fakes.engine import Engine, profile
from tests.fakes.source import FakeSource

A, B = "anthropic:a", "anthropic:b"


def two() -> Engine:
    return Engine(sources=(FakeSource("first"), FakeSource("second")))


def take(engine: Engine, event: SourceEvent, source: int = 0) -> None:
    engine.ingest._take(source, event)


def version(engine: Engine, profile_id: str = A, agent: str = "") -> int:
    return engine.registry.material.held[agent, profile_id].version


def told(engine: Engine, *kinds: type) -> list[object]:
    return [event for event in engine.emitted if isinstance(event, kinds)]


# -- following ---------------------------------------------------------------------------------------------------------


async def test_event_of_a_source_takes_effect() -> None:
    """Whole listings, single units, and their removal, as they come."""
    engine = two()
    async with engine.running():
        for source in engine.sources:
            source.push(UnitsListed(()))
        await engine.settle()
        engine.sources[0].push(UnitChanged(Unit("one", (profile(A),))))
        engine.sources[0].push(UnitChanged(Unit("two", (profile(B),))))
        await engine.settle()
        assert engine.registry.material.held.keys() == {("", A), ("", B)}
        engine.sources[0].push(UnitRemoved("one"))
        await engine.settle()
        assert engine.registry.material.held.keys() == {("", B)}
        engine.sources[0].push(UnitsListed(()))
        await engine.settle()
        assert engine.registry.material.held == {}


async def test_sources_do_not_wait_for_each_other() -> None:
    """One that hangs delays nobody; settled are all when all have spoken, be it of a failure."""
    engine = two()
    async with engine.running():
        engine.hold(profile(A), source=1)
        waiting = asyncio.ensure_future(engine.ingest.wait_attempted())
        await engine.clock.elapse(0)
        assert ("", A) in engine.registry.material.held
        assert not waiting.done()
        assert (engine.ingest.attempted, engine.ingest.synced) == (False, False)
        engine.sources[0].push(SourceUnavailable("no route"))
        async with asyncio.timeout(60):
            await waiting
        assert (engine.ingest.attempted, engine.ingest.synced) == (True, False)
        engine.sources[0].push(UnitsListed(()))
        await engine.settle()
        assert engine.ingest.synced


class Dying(FakeSource):
    """Fails after the first event, or just ends."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__("dying")
        self._error = error

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        yield await self._queue.get()
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        ValueError("a value"),
        RecursionError("deep"),
        ExceptionGroup("many", [OSError("one"), KeyError("two")]),
        UnicodeDecodeError("utf-8", b"text", 0, 1, "bad"),
        None,
    ],
    ids=lambda error: type(error).__name__,
)
async def test_failed_source_is_started_again(error: Exception | None) -> None:
    """P1: with an exception that is none of ours, or by ending without one. Its profiles are served for a while, those of the
    others as ever; the fault has the incident's number and no value, and ends with the next reading."""
    dying, living = Dying(error), FakeSource("living")
    engine = Engine(sources=(dying, living))
    before = counts()["source"]
    async with engine.running():
        engine.hold(profile(A), source=1)
        dying.push(UnitsListed(()))
        state = await until_down(engine)
        assert re.search(r"^dying cannot be read: an unexpected fault \(.*\), incident [0-9a-f]{8} in the .* log$", state.fault)
        assert not any(said in state.fault for said in ("a value", "deep", "many", "one", "two", "text"))
        assert counts()["source"] == before + 1
        assert ("", A) in engine.registry.material.held
        dying.push(UnitsListed(()))
        engine.ingest.look_again("dying")
        await engine.clock.elapse(0.6)
        assert counts()["source"] >= before + 1
        assert engine.ingest.synced


async def until_down(engine: Engine) -> SourceState:
    """The first source's state, once it is down."""
    async with asyncio.timeout(60):
        while not engine.ingest.states[0].fault:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    return engine.ingest.states[0]


async def test_failing_reread_does_not_block_other_sources() -> None:
    """P1: the others are read."""

    class Deaf(FakeSource):
        def reread(self) -> None:
            raise RecursionError("deaf")

    engine = Engine(sources=(Deaf("deaf"), FakeSource("living")))
    async with engine.running():
        for source in engine.sources:
            source.push(UnitsListed(()))
        await engine.settle()
        before = counts()["source"]
        asking = asyncio.ensure_future(engine.ingest.reread(within=1.0))
        await engine.clock.elapse(0)
        assert counts()["source"] == before + 1
        await engine.clock.elapse(2)
        asking.cancel()


async def test_reread_waits_for_all_sources() -> None:
    """Each was asked once; what another watch says meanwhile is no answer; one that stays silent is not waited for forever."""
    engine = two()
    async with engine.running():
        for source in engine.sources:
            source.push(UnitsListed(()))
        await engine.settle()
        assert await engine.ingest.reread() is True
        assert [source.rereads for source in engine.sources] == [1, 1]
        engine.sources[1].deaf = True
        engine.sources[1].push(UnitChanged(Unit("one")))
        assert await engine.ingest.reread(within=0.05) is False
        asking = asyncio.ensure_future(engine.ingest.reread())
        await engine.settle()
        assert not asking.done()
        engine.sources[1].push(SourceUnavailable("gone"))
        async with asyncio.timeout(60):
            assert await asking is True


# -- versions ----------------------------------------------------------------------------------------------------------


def test_a_version_grows_when_the_material_changes() -> None:
    """And only then: not with an equal listing, and not with where it comes from."""
    engine = two()
    engine.put(profile(A, "one"))
    first = version(engine)
    engine.put(profile(A, "one"))
    engine.put(profile(A, "one", source="elsewhere"), source=1)
    engine.put()
    assert version(engine) == first
    engine.put(profile(A, "two"), source=1)
    second = version(engine)
    engine.put(profile(A, "two", expires_at=1.9e9), source=1)
    third = version(engine)
    engine.put(profile(A, None), source=1)
    fourth = version(engine)
    engine.put(profile(A, "one"), source=1)
    assert first < second < third < fourth < version(engine)


@given(st.lists(st.dictionaries(st.sampled_from([A, B]), st.sampled_from("xyz"))))
def test_version_identifies_the_profile(history: list[dict[str, str]]) -> None:
    """No number is given twice: equal numbers mean the same secret of the same profile, in one moment or a year apart."""
    engine = Engine()
    meaning: dict[int, tuple[str, str]] = {}
    for listing in history:
        engine.put(*(profile(i, secret) for i, secret in listing.items()))
        for i, secret in listing.items():
            assert meaning.setdefault(version(engine, i), (i, secret)) == (i, secret)


def test_versions_outlive_a_restart() -> None:
    """Equal material keeps its number, so that nobody is told of a rotation that was none; the next one is greater still, also
    if the clock went back meanwhile."""
    engine = Engine()
    engine.put(profile(A, "one"), profile(B, "other"), profile(A, "own", agent="main"))
    before = {key: held.version for key, held in engine.registry.material.held.items()}
    engine.store.crash()
    engine.clock.jump_wall(-86400 * 365)
    again = Engine(store=engine.store, clock=engine.clock)
    again.put(profile(A, "one"), profile(B, "other"), profile(A, "own", agent="main"))
    assert {key: held.version for key, held in again.registry.material.held.items()} == before
    again.put(profile(A, "two"), profile(B, "other"))
    assert version(again) > max(before.values())


def test_a_change_while_the_broker_was_down_is_a_new_version() -> None:
    """What was served before the restart is older than what is served now."""
    engine = Engine()
    engine.put(profile(A, "one"))
    again = Engine(store=engine.store, clock=engine.clock)
    again.put(profile(A, "two"))
    assert version(again) > version(engine)


def test_nothing_of_the_secret_is_stored() -> None:
    """A version is stored with a keyed digest."""
    engine = Engine()
    engine.put(profile(A, "canary-secret"))
    (stored,) = engine.store.load().versions.values()
    assert len(stored.digest) == 16
    assert "canary" not in repr(engine.store.load())


def test_removed_profile_is_dropped() -> None:
    """No copy of it stays behind."""
    engine = Engine()
    engine.put(profile(A, "canary-secret"))
    engine.put()
    kept = [vars(part) for part in (engine.ingest, engine.registry)]
    assert not any(A in repr(values.get(name)) for values in kept for name in ("states", "material", "_candidates"))
    assert engine.registry.secrets() == ()


# -- precedence, and being away ----------------------------------------------------------------------------------------


def test_first_source_wins_and_the_other_is_shadowed() -> None:
    """When it goes, the other takes over."""
    engine = two()
    engine.put(profile(A, "second", source="second"), source=1)
    engine.put(profile(A, "first", source="first"), source=0)
    assert engine.registry.material.held["", A].profile.source == "first"
    assert [(s.profile.source, s.by.source) for s in engine.ingest.shadowed] == [("second", "first")]
    engine.put(source=0)
    assert engine.registry.material.held["", A].profile.source == "second"
    assert engine.ingest.shadowed == ()


def test_a_source_that_is_away_serves_until_its_budget_ends() -> None:
    """Then its profiles are missing; when it is back, they are as before, under the same version."""
    engine = Engine()
    engine.put(profile(A))
    before = version(engine)
    take(engine, SourceUnavailable("no route"))
    engine.clock.advance(599)
    engine.registry.tick()
    found = engine.registry.find("main", A)
    assert found is not None
    assert found[1].standing.usable
    take(engine, SourceUnavailable("still no route"))
    engine.clock.advance(1)
    engine.registry.tick()
    found = engine.registry.find("main", A)
    assert found is not None
    assert found[1].standing.state is State.MISSING
    engine.put(profile(A))
    found = engine.registry.find("main", A)
    assert found is not None
    assert (found[1].standing.state, version(engine)) == (State.OK, before)


# -- what is told ------------------------------------------------------------------------------------------------------


def test_listeners_get_changed_keys() -> None:
    """With the source that brought it; what changes nothing is not told."""
    engine = two()
    engine.put(profile(B), profile(A), source=1)
    engine.put(profile(B), profile(A), source=1)
    assert told(engine, ProfilesChanged) == [ProfilesChanged(profiles=(A, B), source="second", seconds=0.0)]


def test_states_of_a_source_are_events() -> None:
    """First reading, failure (again only when it is another), recovery; not every listing."""
    engine = Engine(sources=(FakeSource("s"),))
    engine.put(profile(A))
    engine.put(profile(A), profile(B))
    for fault in ("down", "down", "down harder"):
        take(engine, SourceUnavailable(fault))
    engine.put(profile(A), profile(B))
    take(engine, UnitsListed((Unit("u", (profile(A),)),), {"v": "unreadable"}))
    take(engine, UnitChanged(Unit("v", (profile(B),))))
    take(engine, UnitsListed((), {"": "/run/secrets/KEY unreadable"}))
    assert told(engine, SourceSynced, SourceStale, SourceRecovered) == [
        SourceSynced(source="s", profiles=1),
        SourceStale(source="s", fault="down"),
        SourceStale(source="s", fault="down harder"),
        SourceRecovered(source="s"),
        SourceSynced(source="s", profiles=2),
        SourceStale(source="s", fault="v: unreadable"),
        SourceRecovered(source="s"),
        SourceSynced(source="s", profiles=2),
        SourceStale(source="s", fault="/run/secrets/KEY unreadable"),
    ]


def test_faults_of_units_are_in_the_state() -> None:
    """They are no trouble of the source."""
    engine = Engine()
    fault = SourceFault("/f:3", "a line without =")
    take(engine, UnitsListed((Unit("u", (profile(A),), (fault,)),)))
    assert engine.ingest.states[0].faults() == [fault]
    assert told(engine, SourceStale) == []


def test_faults_inside_a_unit_are_logged_when_they_are_new() -> None:
    """P7, P10: a source that is read, and holds something that cannot be used, says so; and not again while nothing changes."""
    engine = Engine(sources=(FakeSource("s"),))
    for faults in ((), ("a",), ("a",), ("a", "b"), (), ("a",)):
        take(engine, UnitsListed((Unit("u", (profile(A),), tuple(SourceFault("/f", message) for message in faults)),)))
    assert told(engine, SourceDoubted) == [
        SourceDoubted(source="s", faults=("a",)),
        SourceDoubted(source="s", faults=("a", "b")),
        SourceDoubted(source="s", faults=("a",)),
    ]


def test_listeners_run_after_the_change() -> None:
    """Also of one that changes no profile: readiness waits for that."""
    engine = Engine()
    heard: list[tuple[bool, int]] = []
    engine.ingest.listeners.append(lambda: heard.append((engine.ingest.synced, len(engine.registry.material.held))))
    take(engine, SourceUnavailable("not yet"))
    take(engine, UnitsListed(()))
    engine.put(profile(A))
    assert heard == [(False, 0), (True, 0), (True, 1)]


def test_until_a_source_is_read_its_name_is_known_as_unread() -> None:
    """From the first moment."""
    engine = two()
    unread = [engine.registry.material.unread]
    engine.put(source=1)
    unread.append(engine.registry.material.unread)
    take(engine, SourceUnavailable("down"))
    unread.append(engine.registry.material.unread)
    engine.put()
    unread.append(engine.registry.material.unread)
    assert unread == [("first", "second"), ("first",), ("first",), ()]


async def test_without_sources_everything_is_settled() -> None:
    """Nothing to wait for."""
    engine = Engine(sources=())
    assert isinstance(engine.ingest, Ingest)
    assert engine.ingest.attempted
    assert engine.ingest.synced
    async with asyncio.timeout(60):
        await engine.ingest.wait_attempted()
        assert await engine.ingest.reread() is True
