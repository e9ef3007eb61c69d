"""Health of the broker, of each provider and of each profile.

`""` and `readiness`: each source was read or has failed once, some agent would get a lease of each required provider, and
nothing blocks the broker. A source that cannot be read matters only if a required provider has no credential without it.
`liveness`: the event loop runs. `provider/<id>` and `profile/<id>`: some agent would get a lease of it. The status of an
unknown name is None. `engine.availability` decides who would get a lease.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from equabot_broker.domain.policies import Policies
from equabot_broker.domain.provider import Catalog
from equabot_broker.engine.availability import Availability
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.engine.profiles.registry import Key, ProfileRegistry

_WHOLE: Final = ("", "readiness")
_PROVIDER: Final = "provider/"
_PROFILE: Final = "profile/"


class Readiness:
    """Computes the status from the current state, and wakes watchers when it may have changed.

    `blocked` returns whether the broker must not grant anything now. Its owner calls `look_again` after a change.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        registry: ProfileRegistry,
        ingest: Ingest,
        availability: Availability,
        required: Sequence[str],
        blocked: Callable[[], bool],
    ) -> None:
        self._catalog = catalog
        self._registry = registry
        self._ingest = ingest
        self.availability = availability
        self._required = tuple(required)
        self._watchers: set[asyncio.Event] = set()
        self._draining = False
        self._blocked = blocked

    def apply(self, *, catalog: Catalog, policies: Policies, required: Sequence[str]) -> None:
        """Another configuration is in effect."""
        self._catalog, self._required = catalog, tuple(required)
        self.availability.apply(policies=policies)
        self.look_again()

    def status(self, service: str) -> bool | None:
        """Whether the service serves; None for an unknown name."""
        if service == "liveness":
            return True
        if service in _WHOLE:
            granting = not self._draining and not self._blocked()
            return granting and self._ingest.attempted and not self.unmet()
        if service.startswith(_PROVIDER):
            known = self._catalog.normalise(service.removeprefix(_PROVIDER))
            return None if known is None else self.availability.grants(known) and not self._draining
        if service.startswith(_PROFILE):
            serves = self.availability.serves(service.removeprefix(_PROFILE))
            return None if serves is None else serves and not self._draining
        return None

    def statuses(self) -> dict[str, bool]:
        """The status of every known name. Providers without a profile are included."""
        profiles = sorted({candidate.id for _, candidate in self._registry.all()})
        names = [*_WHOLE, "liveness", *(_PROVIDER + p for p in sorted(self._catalog.providers))]
        names += [_PROFILE + profile for profile in profiles]
        found = ((name, self.status(name)) for name in names)
        return {name: status for name, status in found if status is not None}

    async def watch(self, service: str) -> AsyncGenerator[bool | None, None]:
        """Yields the current status, and then each change."""
        change = asyncio.Event()
        self._watchers.add(change)
        try:
            last = self.status(service)
            yield last
            while True:
                await change.wait()
                change.clear()
                now = self.status(service)
                if now is not last:
                    last = now
                    yield now
        finally:
            self._watchers.discard(change)

    def drain(self) -> None:
        """From now on only `liveness` serves."""
        self._draining = True
        self.look_again()

    def look_again(self) -> None:
        """Wakes the watchers, because a status may have changed."""
        for change in self._watchers:
            change.set()

    def unmet(self) -> dict[str, str]:
        """The required providers of which no agent would get a lease, and why."""
        return {of: self.availability.obstacles(of) for of in self._required if not self.availability.grants(of)}

    def profiles_changed(self, keys: frozenset[Key]) -> None:
        """A listener of the registry."""
        self.look_again()

    def agent_changed(self, agent: str) -> None:
        """A listener of the suspensions."""
        self.look_again()
