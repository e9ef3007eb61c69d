"""Where each login is kept: in a Secret where its source is one of those given here, else in an agent's store. Fulfils
`ports.LoginStore`."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Final, Protocol

from equabot_broker.domain.profiles import Profile
from equabot_broker.ports import LockedStore, ProfileStore

_NONE: Final[Mapping[str, "Units"]] = MappingProxyType({})


class Units(Protocol):
    """A source's units that can be locked and written."""

    def locked(self, login: Profile) -> AbstractAsyncContextManager[LockedStore]:
        """The login's unit, locked against every other writer while the context lasts. Raises StoreFault."""

    async def close(self) -> None:
        """Lets go of whatever it is reached by."""


class LoginPlaces:
    """`agents` are the agents' own stores, `units` what other sources have, by the name of the source."""

    def __init__(self, agents: ProfileStore, units: Mapping[str, Units] = _NONE) -> None:
        self._agents = agents
        self._units = dict(units)

    def add(self, units: Mapping[str, Units]) -> None:
        """More units. One of a name that is known stays, and none goes before `close`: a refresh may be under way in it."""
        self._units = {**units, **self._units}

    def lacks(self, name: str) -> bool:
        """Whether there are no units of that source."""
        return name not in self._units

    def locked(self, login: Profile) -> AbstractAsyncContextManager[LockedStore]:
        """The store of the login. Raises StoreFault."""
        if login.source in self._units:
            return self._units[login.source].locked(login)
        return self._agents.locked(login.agent)

    async def close(self) -> None:
        """Lets go of whatever they are reached by."""
        for units in self._units.values():
            await units.close()
