"""Synchronises logins that are in two places: a profile store and the file of their tool."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from equabot_broker.engine.profiles.registry import Key
from equabot_broker.engine.timing.clock import pause
from equabot_broker.ports import Clock, StoreFault
from equabot_broker.telemetry.incidents import incident

_log = logging.getLogger("equabot.stores")

_RETRY: Final = 30.0
_LONGEST: Final = 3600.0


class LoginMirror:
    """Runs the `mirrors`, by profile id, after changes. A mirror synchronises both places; it blocks, and raises StoreFault."""

    def __init__(self, *, clock: Clock, mirrors: Mapping[str, Callable[[], object]]) -> None:
        self._clock = clock
        self._mirrors = mirrors
        self._changed: set[str] = set()
        self._sooner = asyncio.Event()

    def apply(self, mirrors: Mapping[str, Callable[[], object]]) -> None:
        """Another configuration is in effect: each mirror runs once."""
        self._mirrors = mirrors
        self._changed = set(mirrors)
        self._sooner.set()

    async def run(self) -> None:
        """Synchronises changed logins, forever."""
        while True:
            self._sooner.clear()
            failed = {profile_id for profile_id in list(self._changed) if not await self._synchronise(profile_id)}
            self._changed |= failed
            await pause(self._clock, _RETRY if failed else _LONGEST, sooner=self._sooner)

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry: changed logins are synchronised soon."""
        changed = {profile_id for agent, profile_id in keys if not agent and profile_id in self._mirrors}
        if changed:
            self._changed |= changed
            self._sooner.set()

    async def _synchronise(self, profile_id: str) -> bool:
        self._changed.discard(profile_id)
        try:
            if (mirror := self._mirrors.get(profile_id)) is not None:
                await asyncio.to_thread(mirror)
        except StoreFault as fault:
            why = str(fault)
        except Exception as error:  # noqa: BLE001 - a port: it is tried again
            why = str(incident("profile_store", profile_id, error))
        else:
            return True
        _log.warning("%s differs between the file of its tool and the profile store: %s", profile_id, why)
        return False
