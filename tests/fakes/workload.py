"""An engine with one workload, whose identity is exchanged by script; `other` is a source beside it."""

import asyncio
from dataclasses import replace
from typing import Any

from equabot_broker.domain.material import Unit, UnitsListed
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.domain.selection import Candidate
from equabot_broker.engine.leases.messages import LeaseRequest
from equabot_broker.oauth.refreshing import Blame, RefreshFailure
from tests.fakes.clock import FakeClock
from tests.fakes.engine import Engine
from tests.fakes.source import FakeSource

LIFE = 600.0
LEAD = LIFE / 3
ASKED = LeaseRequest(provider="acme")
DOWN = RefreshFailure(Blame.TRANSIENT, "http_503", "the token endpoint answered 503")
UNTRIED = Profile(
    id="acme:pod",
    provider="acme",
    mode=Mode.WIF,
    source="workload",
    unit="acme:pod",
    origin="the identity token in /t",
    fault="not exchanged yet",
    workload=True,
)


class Exchanging:
    """Fulfils `ports.Identities`: the outcomes in their order, and the last one forever, where None is success. Nothing
    comes of it before `open` is set."""

    def __init__(self, clock: FakeClock, source: FakeSource, *outcomes: RefreshFailure | None) -> None:
        self._clock = clock
        self._source = source
        self.outcomes = list(outcomes) or [None]
        self.asked = 0
        self.open = asyncio.Event()
        self.open.set()

    async def exchange(self, profile_id: str) -> RefreshFailure | None:
        """The next outcome; `wif-<number of the exchange>` is the token."""
        assert profile_id == UNTRIED.id
        self.asked += 1
        number = self.asked
        await self.open.wait()
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is None:
            now = self._clock.now()
            given = replace(UNTRIED, secret=SecretValue(f"wif-{number}"), fault="", issued_at=now, expires_at=now + LIFE)
            self._source.push(UnitsListed((Unit(UNTRIED.unit, (given,)),)))
        return outcome


class World(Engine):
    """The engine. Nothing is exchanged before it runs."""

    def __init__(self, *outcomes: RefreshFailure | None, **options: Any) -> None:
        clock, source, self.other = FakeClock(), FakeSource("workload"), FakeSource("other")
        self.exchanging = Exchanging(clock, source, *outcomes)
        super().__init__(
            clock=clock,
            sources=(source, self.other),
            identities=self.exchanging,
            providers={"acme": Provider(id="acme")},
            **options,
        )
        source.push(UnitsListed((Unit(UNTRIED.unit, (UNTRIED,)),)))
        self.hold(source=1)

    @property
    def board(self) -> Candidate:
        """The workload's profile as everybody sees it."""
        found = self.registry.find("main", UNTRIED.id)
        assert found is not None
        return found[1]

    @property
    def served(self) -> str:
        """What a request gets now."""
        secret = self.lease_service.acquire("main", ASKED).held.profile.secret
        assert secret is not None
        return secret.reveal()

    async def wait(self, *, within: float = 60.0) -> str:
        """What somebody gets who has so much time."""
        found = await self.refresh_scheduler.ask_until_refreshed(
            lambda: self.lease_service.acquire("main", ASKED, waits=True), within=within
        )
        assert found.held.profile.secret is not None
        return found.held.profile.secret.reveal()
