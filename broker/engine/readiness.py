"""What health says: about the broker, about each provider, about each profile.

`""` and `readiness`: every required provider has a profile that serves and that some agent may be granted, every source has
been read, and nothing keeps it from granting. A suspended agent is granted nothing. `liveness`: the loop turns.
`provider/<id>` and `profile/<id>`: that one serves. A name that means nothing is None.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from broker.domain.policies import Delivery, Policies
from broker.domain.provider import Catalog
from broker.engine.ingesting import Ingesting
from broker.engine.standing import Key, Standings
from broker.engine.suspensions import Suspensions

_WHOLE: Final = ("", "readiness")
_PROVIDER: Final = "provider/"
_PROFILE: Final = "profile/"


class Readiness:
    """Answers from what is true now; wakes those who watch when it may have changed."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        policies: Policies,
        standings: Standings,
        ingesting: Ingesting,
        suspensions: Suspensions,
        required: Sequence[str],
    ) -> None:
        self._catalog = catalog
        self._policies = policies
        self._standings = standings
        self._ingesting = ingesting
        self._suspensions = suspensions
        self._required = tuple(required)
        self._watchers: set[asyncio.Event] = set()
        self._draining = False
        self.blocked: Callable[[], bool] = lambda: False
        """Whether nothing may be granted now, whatever there is to grant. Who sets it says `look_again` when that changes."""
        standings.listeners.append(self._changed)
        ingesting.listeners.append(self.look_again)
        suspensions.listeners.append(lambda _: self.look_again())

    def apply(self, *, catalog: Catalog, policies: Policies, required: Sequence[str]) -> None:
        """The configuration is another."""
        self._catalog, self._policies, self._required = catalog, policies, tuple(required)
        self.look_again()

    def status(self, service: str) -> bool | None:
        """Whether the service serves; None for a name that is not known (now)."""
        if service == "liveness":
            return True
        if service in _WHOLE:
            granting = not self._draining and not self.blocked()
            return granting and self._ingesting.synced and not self.unmet()
        if service.startswith(_PROVIDER):
            known = self._catalog.normalise(service.removeprefix(_PROVIDER))
            return None if known is None else self._provider(known) and not self._draining
        if service.startswith(_PROFILE):
            return self._profile(service.removeprefix(_PROFILE))
        return None

    def statuses(self) -> dict[str, bool]:
        """Every known name. Providers without a profile are known as well."""
        profiles = sorted({candidate.id for _, candidate in self._standings.all()})
        names = [*_WHOLE, "liveness", *(_PROVIDER + p for p in sorted(self._catalog.providers))]
        names += [_PROFILE + profile for profile in profiles]
        found = ((name, self.status(name)) for name in names)
        return {name: status for name, status in found if status is not None}

    async def watch(self, service: str) -> AsyncGenerator[bool | None, None]:
        """The status now, and each time it differs from the last."""
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            last = self.status(service)
            yield last
            while True:
                await news.wait()
                news.clear()
                now = self.status(service)
                if now is not last:
                    last = now
                    yield now
        finally:
            self._watchers.discard(news)

    def drain(self) -> None:
        """From now on nothing serves, but the loop still turns."""
        self._draining = True
        self.look_again()

    def look_again(self) -> None:
        """Something outside the profiles may have changed what health says."""
        for news in self._watchers:
            news.set()

    def unmet(self) -> list[str]:
        """The required providers of which no agent can be granted anything."""
        return [provider for provider in self._required if not self._grantable(provider)]

    def _grantable(self, provider: str) -> bool:
        known = self._catalog.get(provider)
        brokered = known is not None and not known.gateway_fault
        agents = [
            (agent, policy)
            for agent, policy in self._policies.agents.items()
            if self._suspensions.of(agent) is None and (brokered or Delivery.RAW in policy.deliveries)
        ]
        return any(
            owner in ("", agent) and policy.allows_profile(provider, profile) and self._serves(agent, profile)
            for owner, profile in self._standings.usable(provider)
            for agent, policy in agents
        )

    def _serves(self, agent: str, profile: str) -> bool:
        """Whether the profile serves the agent, with what that agent alone has met."""
        found = self._standings.find(agent, profile)
        return found is not None and found[1].standing.usable

    def _provider(self, provider: str) -> bool:
        return self._standings.serves(provider)

    def _profile(self, profile: str) -> bool | None:
        found = self._standings.holders(profile)
        return any(candidate.standing.usable for candidate in found) and not self._draining if found else None

    def _changed(self, keys: frozenset[Key]) -> None:
        self.look_again()
