"""Where a login is kept is decided by where its profile came from."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.ports import LockedStore
from equabot_broker.storage.login_places import LoginPlaces
from tests.fakes.profile_store import MemoryProfileStore


class Cabinet:
    """Units, each of them a store of the same name in memory."""

    def __init__(self) -> None:
        self.drawers = MemoryProfileStore()

    @asynccontextmanager
    async def locked(self, login: Profile) -> AsyncIterator[LockedStore]:
        async with self.drawers.locked(login.unit) as store:
            yield store

    async def close(self) -> None:
        self.drawers.broken = "closed"


def login(source: str, unit: str, agent: str = "") -> Profile:
    return Profile(id="p:a", provider="p", mode=Mode.OAUTH, source=source, unit=unit, origin="", agent=agent)


async def entries(places: LoginPlaces, of: Profile) -> set[str]:
    async with places.locked(of) as store:
        return set(store.document.entries)


async def test_known_source_uses_its_units_and_others_the_agent_store() -> None:
    """The same id, and the same name of a unit, in several places are several logins."""
    agents, cabinet = MemoryProfileStore(), Cabinet()
    agents.documents |= {name: AuthDocument({"profiles": {f"p:{name}": {}}}) for name in ("main", "coder")}
    cabinet.drawers.documents["coder"] = AuthDocument({"profiles": {"p:unit": {}}})
    places = LoginPlaces(agents, {"cabinet": cabinet})
    assert await entries(places, login("profile_store", "main")) == {"p:main"}
    assert await entries(places, login("profile_store", "coder", agent="coder")) == {"p:coder"}
    assert await entries(places, login("cabinet", "coder")) == {"p:unit"}
    assert await entries(places, login("cabinet", "other")) == set()
    await places.close()
    assert cabinet.drawers.broken
