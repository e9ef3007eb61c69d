"""Watches files for changes: by inotify in the event loop, without threads or delay, or else by polling every few seconds.

A reader declares its interests, then reads. If the kernel reports a change of them before the reading ends, the reading is
discarded, so that no mixture of old and new content is used. A file that is being written is not read until it is closed.
Every step of a path is watched, because it may be replaced, appear, vanish, or be a link to a link.

No event reports that a fault of the system has ended. So a failed reading is repeated with growing delays. A file that is
written without end does not keep the broker busy, because reading takes a bounded share of the time.
"""

import asyncio
import errno
import logging
import os
import random
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from inotify_simple import Event, INotify
from inotify_simple import flags as on

from equabot_broker.ports import Clock
from equabot_broker.sources._pacing import Retries, WorkShare
from equabot_broker.sources._watched_directory import WatchedDirectory, being_written

_log = logging.getLogger("equabot.sources")

_ITSELF: Final = on.DELETE_SELF | on.MOVE_SELF | on.ATTRIB | on.ONLYDIR
_ENTRIES: Final = on.CREATE | on.DELETE | on.MOVED_FROM | on.MOVED_TO | on.ATTRIB | on.ONLYDIR
_CONTENTS: Final = _ENTRIES | on.CLOSE_WRITE | on.MODIFY

_FILE: Final = on.ATTRIB
"""The event of a file that is mounted without its directory: the original file lost its name."""

_SETTLE_WITHIN: Final = 1.0
"""Seconds for which a file that is being written delays its reading."""

_TRIES: Final = 20
_POLL_EVERY: Final = (2.0, 4.0)
_AGAIN: Final = {"base": 0.5, "cap": 30.0}
"""Seconds between two readings after a failure."""

_NOTIFIED_AGAIN: Final = {"base": 30.0, "cap": 300.0}
"""Seconds between two attempts to use inotify again."""

_LINKS_MAX: Final = 40
_REMEDIES: Final = {
    errno.ENOSPC: "; raise fs.inotify.max_user_watches",
    errno.EMFILE: "; raise fs.inotify.max_user_instances",
    errno.EACCES: "; let the broker read the directories on the way",
}


@dataclass(frozen=True, slots=True)
class Changes:
    """What to read again: everything, or the interests under these names. `asked`: a caller wants an event in any case."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    asked: bool = False

    def __or__(self, other: "Changes") -> "Changes":
        return Changes(self.everything or other.everything, self.names | other.names, self.asked or other.asked)

    def touch(self, other: "Changes") -> bool:
        """Whether the two have something in common."""
        return self.everything or bool(self.names if other.everything else self.names & other.names)


class Watch:
    """The changes of files, each under a name that the reader chooses. It has one reader at a time.

    `rounds` is the loop. The function that reads declares the interests inside of it.
    """

    def __init__(self, clock: Clock, *, inotify: Callable[[], INotify] = INotify) -> None:
        self._clock = clock
        self._open = inotify
        self._inotify: INotify | None = None
        self._lock = threading.RLock()  # the thread of a cancelled reader may outlive the watch
        self._directories: dict[int, WatchedDirectory] = {}
        self._interests: defaultdict[str, set[tuple[int, str]]] = defaultdict(set)
        self._writing: dict[tuple[int, str], set[str]] = {}
        self._changes = Changes()
        self._news = asyncio.Event()
        self._unread: set[str] = set()
        self._again = Retries(clock, **_AGAIN)
        self._notified_again = Retries(clock, **_NOTIFIED_AGAIN)
        self._polled_because = ""
        self._work = WorkShare(clock)

    async def rounds(self, read: Callable[[Changes], None]) -> AsyncGenerator[Changes, None]:
        """Calls `read` in a thread, first for everything, then for changes. Yields what was read, once nothing changed
        during the reading. Continues until it is cancelled or closed."""
        try:
            self._changes = Changes()
            self._start()
            changes = Changes(everything=True)
            while True:
                for _ in range(_TRIES):
                    await self._work.rest()
                    with self._work:
                        await asyncio.to_thread(read, changes)
                    self._take()
                    if not self._changes.touch(changes):
                        break
                    changes |= await self._changed()
                self._say_recovered()
                with self._work:  # the caller's work with the result counts as well
                    yield changes
                changes = await self._changed()
        finally:
            self._stop()

    def ask(self) -> None:
        """Starts the next round now, for everything, with `asked`."""
        self._changes |= Changes(everything=True, asked=True)
        self._news.set()

    # --- what a reader declares ---------------------------------------------------------------------------------

    @contextmanager
    def interests(self, name: str) -> Iterator[None]:
        """Replaces the interests under the name with those that are declared inside."""
        self._unread.discard(name)
        before = self._interests.pop(name, set())
        for descriptor, entry in before:
            if (directory := self._directories.get(descriptor)) is not None:
                directory.forget(name, entry)
        try:
            yield
        finally:
            for descriptor in {descriptor for descriptor, _ in before}:
                self._unwatch_idle(descriptor)

    def drop(self, name: str) -> None:
        """Removes the interests under the name."""
        with self.interests(name):
            pass

    def unread(self, name: str) -> None:
        """Records that the reading under the name failed. It is repeated after a delay, also without a change, until its
        interests are declared again."""
        self._unread.add(name)

    def path(self, name: str, path: Path, *, below: Path = Path("/")) -> None:
        """Declares an interest in an absolute path: the steps to it, links on the way, and the last entry itself. `below` is
        a part of it that is already watched."""
        at, links = below, 0
        steps = list(reversed(path.relative_to(below).parts))
        while steps and links <= _LINKS_MAX:
            step = steps.pop()
            if step == "..":
                at = at.parent
                continue
            here = at / step
            if steps and os.path.isdir(here) and not os.path.islink(here):  # noqa: PTH112, PTH114  (which never raise)
                self._want(name, here, _ITSELF)
            else:
                self._want(name, at, _ENTRIES if steps else _CONTENTS, entry=step)
            try:
                target = here.readlink()
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: it exists and is not a link
                    return
                if not steps:
                    self._want(name, here, _FILE)
                at = here
            else:
                links += 1
                at = Path("/") if target.is_absolute() else at
                steps += reversed(target.parts[target.is_absolute() :])

    def listing(self, name: str, directory: Path, wants: Callable[[str], bool]) -> None:
        """Declares an interest in the entries of a directory: files that `wants` accepts, and directories."""
        self._want(name, directory, _CONTENTS, wants=wants)

    def _want(self, name: str, path: Path, mask: int, *, entry: str = "", wants: Callable[[str], bool] | None = None) -> None:
        with self._lock:
            if self._inotify is None:
                return
            try:
                descriptor = self._inotify.add_watch(path, mask | on.MASK_ADD)
            except OSError as error:
                # The reader gets the same error for a listing that is denied or for a directory that has just vanished.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP) and not (
                    error.errno == errno.EACCES and not entry
                ):
                    self._poll_instead(error)
                return
        directory = self._directories.setdefault(descriptor, WatchedDirectory(path))
        self._interests[name].add((descriptor, entry))
        if wants is not None:
            directory.listings[name] = wants
        elif entry:
            directory.entries[entry].add(name)
        else:
            directory.itself.add(name)

    def _unwatch_idle(self, descriptor: int) -> None:
        directory = self._directories.get(descriptor)
        if directory is None or directory.itself or directory.entries or directory.listings:
            return
        self._forget(descriptor)
        with self._lock, suppress(OSError):  # the kernel may have removed it already
            if self._inotify is not None:
                self._inotify.rm_watch(descriptor)

    def _forget(self, descriptor: int) -> None:
        del self._directories[descriptor]
        self._writing = {file: names for file, names in self._writing.items() if file[0] != descriptor}

    # --- events of the kernel ------------------------------------------------------------------------------------

    def _take(self) -> None:
        with self._lock:
            events = self._inotify.read(timeout=0) if self._inotify is not None else []
        for event in events:
            self._note(event)
        if self._changes != Changes():
            self._news.set()

    def _note(self, event: Event) -> None:
        if event.mask & on.Q_OVERFLOW:
            _log.warning("the inotify queue overflowed: reading everything again")
            self._writing.clear()
            self._changes |= Changes(everything=True)
            return
        directory = self._directories.get(event.wd)
        if directory is None:
            return
        if event.mask & on.IGNORED:
            self._forget(event.wd)
        names = directory.whom(event.name, event.mask) if event.name else directory.everyone()
        if not names:
            return
        self._changes |= Changes(names=frozenset(names))
        file = (event.wd, event.name)
        if event.mask & on.MODIFY or (event.mask & on.CREATE and being_written(directory.path / event.name)):
            self._writing[file] = names
        elif not event.mask & on.ATTRIB:
            self._writing.pop(file, None)

    # --- waiting for changes -------------------------------------------------------------------------------------

    async def _changed(self) -> Changes:
        async with asyncio.TaskGroup() as tasks:
            again = tasks.create_task(self._read_again(frozenset(self._unread)))
            try:
                await (self._poll() if self._inotify is None else self._listen(self._inotify.fileno()))
            finally:
                again.cancel()
        found = self._changes
        held = frozenset() if found.everything else self._held()
        self._changes = Changes(names=found.names & held)
        return replace(found, names=found.names - held)

    async def _read_again(self, unread: frozenset[str]) -> None:
        self._again.concern(unread)
        if unread:
            await self._clock.sleep(self._again.left())
            self._changes |= Changes(names=unread)
            self._news.set()

    async def _listen(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, self._take)
        try:
            await self._until(lambda: self._changes != Changes())
            async with asyncio.timeout(_SETTLE_WITHIN):
                await self._until(lambda: self._changes.everything or not self._changes.names <= self._held())
        except TimeoutError:
            self._writing.clear()
        finally:
            loop.remove_reader(descriptor)

    def _held(self) -> frozenset[str]:
        return frozenset().union(*self._writing.values())

    async def _poll(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            nap = tasks.create_task(self._clock.sleep(random.uniform(*_POLL_EVERY)))  # noqa: S311  (not a secret)
            nap.add_done_callback(lambda _: self._news.set())
            await self._until(lambda: nap.done() or self._changes != Changes())
            nap.cancel()
        self._changes |= Changes(everything=True)
        if self._notified_again.left() <= 0:
            self._start()

    async def _until(self, happened: Callable[[], bool]) -> None:
        while not happened():
            self._news.clear()
            await self._news.wait()

    # --- start and stop ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            self._inotify = self._open()
        except (OSError, AttributeError) as error:  # AttributeError: a system without inotify
            self._poll_instead(error)

    def _say_recovered(self) -> None:
        if self._inotify is not None and self._polled_because:
            self._polled_because = ""
            _log.info("inotify works again: polling has ended")

    def _poll_instead(self, error: Exception) -> None:
        why = str(error.strerror) if isinstance(error, OSError) else "this system has no inotify"
        remedy = _REMEDIES.get(error.errno or 0, "") if isinstance(error, OSError) else ""
        if why != self._polled_because:
            self._polled_because = why
            _log.warning("inotify cannot be used (%s): polling for changes every few seconds%s", why, remedy)
        self._notified_again.concern(frozenset({why}))
        self._stop()

    def _stop(self) -> None:
        with self._lock:
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None
        self._directories.clear()
        self._interests.clear()
        self._writing.clear()
