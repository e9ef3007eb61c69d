"""An engine whose profiles stand in stores, and a token endpoint by script: for everything that is about refreshing."""

from collections.abc import Callable
from typing import Any

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.provider import Catalog, Provider
from equabot_broker.domain.selection import Candidate
from equabot_broker.engine.leases.messages import Grant, LeaseRequest
from equabot_broker.oauth.refreshing import RefreshFailure, TokenAnswer
from equabot_broker.telemetry.events import Event
from tests.fakes.engine import Engine
from tests.fakes.profile_store import MemoryProfileStore, StoreSource
from tests.fakes.scripted_endpoint import ScriptedEndpoint, granted
from tests.fakes.source import FakeSource

NOW = 1_800_000_000
LIFE = 600
LEAD = LIFE / 3
ACME = Provider(
    id="acme",
    base_url="https://api.acme.example",
    requests=("/**",),
    token_url="https://login.acme.example/token",
    client_id="acme-cli",
)
PROVIDERS = {"acme": ACME, "bare": Provider(id="bare")}
ASKED = LeaseRequest(provider="acme")


def login(number: int = 1, *, left: float = LIFE, **fields: Any) -> dict[str, Any]:
    """The entry that `granted(number)` leaves, with so many seconds left of its access token."""
    tokens = {"access": f"at-{number}", "refresh": f"rt-{number}"}
    times = {"expires": int((NOW + left) * 1000), "issuedAt": int((NOW + left - LIFE) * 1000)}
    return {"type": "oauth", "provider": "acme", **tokens, **times, **fields}


class World(Engine):
    """The engine. Its source `other` is for profiles from elsewhere."""

    def __init__(self, *answers: TokenAnswer | RefreshFailure, entry: dict[str, Any] | None = None, **options: Any) -> None:
        self.script = ScriptedEndpoint(*(answers or (granted(2),)))
        self.logins = MemoryProfileStore()
        self.following = StoreSource(self.logins, DiscoveryRules(Catalog(PROVIDERS)))
        self.other = FakeSource("other")
        super().__init__(
            providers=PROVIDERS, profiles=self.logins, endpoint=self.script, sources=(self.following, self.other), **options
        )
        self.hold(source=1)
        self.write({"acme:me": entry or login()})

    def write(self, entries: dict[str, dict[str, Any]], agent: str = "main") -> None:
        """Another program writes a store, and the source notices."""
        self.logins.put(agent, entries)
        self.following.reread()

    @property
    def board(self) -> Candidate:
        """The login as everybody sees it."""
        found = self.registry.find("main", "acme:me")
        assert found is not None
        return found[1]

    @property
    def served(self) -> str:
        """The access token that a request gets now."""
        secret = self.lease_service.acquire("main", ASKED).held.profile.secret
        assert secret is not None
        return secret.reveal()

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.emitted if isinstance(event, kind)]

    async def wait(self, ask: Callable[[], Grant] | None = None, *, within: float = 60.0) -> str:
        """What somebody gets who has so much time."""
        found = await self.refresh_scheduler.ask_until_refreshed(
            ask or (lambda: self.lease_service.acquire("main", ASKED, waits=True)), within=within
        )
        assert found.held.profile.secret is not None
        return found.held.profile.secret.reveal()
