"""Noticing changes where it is hard: no inotify, too little of it, too much of it."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import Unit
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.sources._watched_directory import being_written
from equabot_broker.sources._watching import Changes, Watch
from equabot_broker.sources.dotenv import Dotenv, DotenvOptions
from equabot_broker.sources.mounted import Mounted, MountedOptions
from tests.fakes.clock import FakeClock, HurriedClock
from tests.fakes.following import RULES, UNSHAPED, CountingRules, following, live_watch


def out_of_instances() -> INotify:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Limited(INotify):
    """inotify with a limit of its own, as `fs.inotify.max_user_watches` sets one."""

    left = 2

    def add_watch(self, path: Path, mask: int) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(super().add_watch(path, mask))


@pytest.mark.parametrize(("inotify", "remedy"), [(out_of_instances, "max_user_instances"), (Limited, "max_user_watches")])
async def test_without_inotify_it_looks_every_few_seconds(
    tmp_path: Path, inotify: Callable[[], INotify], remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so once, with the remedy."""
    clock = FakeClock()
    path = tmp_path / ".env"
    source = Dotenv(DotenvOptions(path), rules=RULES, watch=Watch(clock, inotify=inotify))
    with caplog.at_level(logging.WARNING, "equabot.sources"):
        async with following(source) as events:
            assert await events.next() == {}
            for value in ("one", "two"):
                path.write_text(f"OPENAI_API_KEY={value}")
                await asleep(clock)
                assert events.silent
                clock.advance(4.0)
                assert await events.next() == {"": {"openai:dotenv": value}}
            await asleep(clock)
            source.reread()
            assert await events.next() == {"": {"openai:dotenv": "two"}}, "asking does not wait for the next look"
    (record,) = caplog.records
    assert "polling for changes every few seconds" in record.getMessage()
    assert remedy in record.getMessage()


async def asleep(clock: FakeClock) -> None:
    async with asyncio.timeout(60):
        while not clock.sleepers:  # noqa: ASYNC110  (a clock tells nobody)
            await asyncio.sleep(0.001)


def queue_limit() -> int:
    return int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


async def test_more_changes_than_the_kernel_keeps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the queue overflows, what was lost is found by reading everything."""
    limit = queue_limit()
    (tmp_path / "team").mkdir()
    key, noise = tmp_path / "team" / "OPENAI_API_KEY", tmp_path / "noise"
    key.write_text("before")
    source = Mounted(MountedOptions(tmp_path), rules=RULES, watch=live_watch())
    async with following(source) as events:
        assert await events.next() == {"team": {"openai:team": "before"}}
        for _ in range(limit // 3 + 10):  # each time created, closed and deleted, while nobody can listen
            noise.touch()
            noise.unlink()
        key.write_text("after")
        assert await events.next() == ("team", {"openai:team": "after"})
    assert "the inotify queue overflowed" in caplog.text


async def test_a_unit_that_isbeing_written_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """One writer takes its time; what another one finishes is told at once."""
    for name in ("slow", "quick"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "OPENAI_API_KEY").write_text("old")
    source = Mounted(MountedOptions(tmp_path), rules=RULES, watch=live_watch())
    async with following(source) as events:
        await events.next()
        with (tmp_path / "slow" / "OPENAI_API_KEY").open("w") as file:
            file.write("ne")
            file.flush()
            (tmp_path / "quick" / "OPENAI_API_KEY").write_text("new")
            assert await events.next() == ("quick", {"openai:quick": "new"})
            assert events.silent
            file.write("w")
        assert await events.next() == ("slow", {"openai:slow": "new"})


async def test_a_unit_that_is_never_closed_is_read_in_the_end(tmp_path: Path) -> None:
    """A writer that hangs holds its unit up for a moment, and no longer."""
    source = Mounted(MountedOptions(tmp_path), rules=RULES, watch=live_watch())
    async with following(source) as events:
        assert await events.next() == {}
        with (tmp_path / "OPENAI_API_KEY").open("w") as file:
            file.write("open")
            file.flush()
            assert await events.next() == ("", {"openai:mounted": "open"})


def test_a_file_that_is_linked_into_place_is_complete(tmp_path: Path) -> None:
    """Nobody will close it, so nobody waits for that; the same goes for links and for what has gone already."""
    (tmp_path / "new").touch()
    assert being_written(tmp_path / "new")
    (tmp_path / "second").hardlink_to(tmp_path / "new")
    (tmp_path / "link").symlink_to("new")
    for name in ("second", "link", "gone"):
        assert not being_written(tmp_path / name)


async def test_what_changes_during_the_reading_throws_it_away(tmp_path: Path) -> None:
    """Not one reading that a writer crossed is handed on."""
    path = tmp_path / ".env"
    path.write_text("OPENAI_API_KEY=0")

    class Crossing(CountingRules):
        def discover(self, *args: Any, **kwargs: Any) -> Unit:
            unit = super().discover(*args, **kwargs)
            if self.reads < 4:
                path.write_text(f"OPENAI_API_KEY={self.reads}")
            return unit

    rules = Crossing(UNSHAPED)
    async with following(Dotenv(DotenvOptions(path), rules=rules, watch=live_watch())) as events:
        assert await events.next() == {"": {"openai:dotenv": "3"}}
        assert rules.reads == 4


async def test_a_writer_that_never_rests_does_not_starve_the_reader(tmp_path: Path) -> None:
    """At some point what is there is told."""
    path = tmp_path / ".env"
    path.write_text("OPENAI_API_KEY=0")

    class Restless(CountingRules):
        def discover(self, *args: Any, **kwargs: Any) -> Unit:
            unit = super().discover(*args, **kwargs)
            path.write_text(f"OPENAI_API_KEY={self.reads}")
            return unit

    async with following(Dotenv(DotenvOptions(path), rules=Restless(UNSHAPED), watch=live_watch())) as events:
        assert await events.next() != {}


@asynccontextmanager
async def rounds(watch: Watch, path: Path) -> AsyncIterator[Callable[[], Awaitable[Changes]]]:
    def read(_: Changes) -> None:
        with watch.interests("it"):
            watch.path("it", path)

    async with aclosing(watch.rounds(read)) as found:

        async def following_round() -> Changes:
            async with asyncio.timeout(60):
                return await anext(found)

        yield following_round


async def test_names_travel_and_nothing_else(tmp_path: Path) -> None:
    """A round says what changed by the name it was declared under."""
    watch = Watch(SystemClock())
    async with rounds(watch, tmp_path / "a" / "b") as following_round:
        assert await following_round() == Changes(everything=True)
        (tmp_path / "a").mkdir()
        assert await following_round() == Changes(names=frozenset({"it"}))
        watch.ask()
        assert await following_round() == Changes(everything=True, asked=True)


async def test_what_is_no_longer_wanted_is_no_longer_watched(tmp_path: Path) -> None:
    """Watches are scarce: a source that lives for months keeps no more than its files need."""
    watch = Watch(SystemClock())
    source = Mounted(MountedOptions(tmp_path), rules=DiscoveryRules(UNSHAPED), watch=watch)
    async with following(source) as events:
        await events.next()
        before = len(watch._directories)
        for number in range(5):
            (tmp_path / ".new").mkdir()
            (tmp_path / ".new" / "OPENAI_API_KEY").write_text("k")
            (tmp_path / ".new").rename(tmp_path / f"s{number}")
            assert await events.next() == (f"s{number}", {f"openai:s{number}": "k"})
        assert len(watch._directories) == before + 5
        for number in range(5):
            (tmp_path / f"s{number}").rename(tmp_path / f".gone{number}")
            assert await events.next() == f"s{number}"
        assert len(watch._directories) == before
        assert len(watch._interests) == 1


async def test_inotify_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S9: descriptors were exhausted when the source began. Once they are not, it is notified again, and says so."""
    clock = FakeClock()
    path = tmp_path / ".env"
    tries = 0

    def inotify() -> INotify:
        nonlocal tries
        tries += 1
        return out_of_instances() if tries < 3 else INotify()

    source = Dotenv(DotenvOptions(path), rules=RULES, watch=Watch(clock, inotify=inotify))
    with caplog.at_level(logging.INFO, "equabot.sources"):
        async with following(source) as events:
            assert await events.next() == {}
            while tries < 3:
                await asleep(clock)
                clock.advance(4.0)
                await asyncio.sleep(0.001)
            async with asyncio.timeout(60):
                while clock.sleepers or "inotify works again" not in caplog.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            path.write_text("OPENAI_API_KEY=one")
            assert await events.next() == {"": {"openai:dotenv": "one"}}, "without waiting for the clock"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"], "each said once"


async def test_what_cannot_be_read_is_tried_ever_less_often() -> None:
    """S9: soon at first, and every half minute in the long run: a fault that lasts costs next to nothing."""
    clock = HurriedClock()
    watch = Watch(clock)
    readings = []

    def read(_: Changes) -> None:
        readings.append(clock.steady())
        with watch.interests("x"):
            watch.unread("x")

    async with aclosing(watch.rounds(read)) as rounds:
        changes = [await asyncio.wait_for(anext(rounds), 60) for _ in range(20)]
    assert changes == [Changes(everything=True), *[Changes(names=frozenset({"x"}))] * 19]
    waits = [after - before for before, after in pairwise(readings)]
    assert 0.25 <= waits[0] <= 0.5
    assert all(15.0 <= wait <= 30.0 for wait in waits[-10:])


async def test_a_file_that_is_written_without_end_does_not_keep_the_broker_busy() -> None:
    """S24: readings that take long take a quarter of the time, once a second of work is used up."""
    clock = HurriedClock()
    watch = Watch(clock)
    rounds_wanted, each = 500, 0.1

    def read(_: Changes) -> None:
        clock.advance(each)

    began = clock.steady()
    async with aclosing(watch.rounds(read)) as rounds:
        for _ in range(rounds_wanted):
            watch.ask()
            await asyncio.wait_for(anext(rounds), 60)
    worked, took = rounds_wanted * each, clock.steady() - began
    assert worked - 1.0 <= took * 0.25 + each
