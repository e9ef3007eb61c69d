"""Following a real source in a test: each event awaited with a deadline, and told in short."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import SourceEvent, SourceUnavailable, Unit, UnitChanged, UnitRemoved, UnitsListed
from equabot_broker.domain.provider import Catalog
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.ports import Source
from equabot_broker.providers import BUILT_IN
from equabot_broker.sources._watching import Watch

_DEADLINE = 60.0


class CountingRules(DiscoveryRules):
    """Rules that know how often a bundle was read."""

    reads = 0

    def discover(self, *args: Any, **kwargs: Any) -> Unit:
        object.__setattr__(self, "reads", self.reads + 1)
        return super().discover(*args, **kwargs)


UNSHAPED = Catalog({known.id: replace(known, form=None) for known in BUILT_IN.providers.values()})
"""The vendors, without the forms of their keys, for tests that are about something else and use short ones."""
RULES = DiscoveryRules(UNSHAPED)


def live_watch() -> Watch:
    """A watch as the broker makes it."""
    return Watch(SystemClock())


def secrets(unit: Unit) -> dict[str, str]:
    """A unit's profile ids and secrets, `!` for those without."""
    return {profile.id: profile.secret.reveal() if profile.secret else "!" for profile in unit.profiles}


def told(event: SourceEvent) -> object:
    """An event in short: ids and secrets by unit; `(unit, secrets)` of a change, the name of what is gone, a fault's text."""
    match event:
        case UnitsListed(units, failed):
            return {unit.name: secrets(unit) for unit in units if unit.profiles} | dict.fromkeys(failed, "failed")
        case UnitChanged(unit):
            return (unit.name, secrets(unit))
        case UnitRemoved(name):
            return name
        case SourceUnavailable(fault):
            return fault


class Following:
    """One source being followed. It listens all the time, as the broker does."""

    def __init__(self, events: AsyncIterator[SourceEvent]) -> None:
        self._events = events
        self._coming: asyncio.Future[SourceEvent] | None = None

    async def event(self) -> SourceEvent:
        """The next event."""
        event = await asyncio.wait_for(self._listen(), _DEADLINE)
        self._coming = None
        self._listen()
        return event

    async def next(self) -> object:
        """The next event, in short."""
        return told(await self.event())

    async def until(self, wanted: Callable[[object], bool]) -> object:
        """The first of the next events that, in short, is wanted."""
        while not wanted(found := await self.next()):
            pass
        return found

    @property
    def silent(self) -> bool:
        """Whether nothing has happened since the last event."""
        return not self._listen().done()

    async def unmoved(self, rules: CountingRules, change: Callable[[], object]) -> None:
        """Does what is noticed and read, but must not be an event: the next one will tell."""
        before = rules.reads
        change()
        async with asyncio.timeout(_DEADLINE):
            while rules.reads == before:  # noqa: ASYNC110  (it is another thread that counts)
                await asyncio.sleep(0.001)

    def _listen(self) -> asyncio.Future[SourceEvent]:
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._events))
        return self._coming

    async def stop(self) -> None:
        """Listens no longer."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])


@asynccontextmanager
async def following(source: Source) -> AsyncIterator[Following]:
    """Follows the source for as long as the context."""
    async with aclosing(source.events()) as events:  # type: ignore[type-var]  # every source of ours is a generator
        followed = Following(events)
        try:
            yield followed
        finally:
            await followed.stop()
