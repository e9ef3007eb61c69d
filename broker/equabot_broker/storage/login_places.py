"""Where each login is kept: in a Secret, for a source that has units, otherwise in an agent's store.

Implements `ports.LoginStore`.
"""

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
        """Closes its connections."""


class LoginPlaces:
    """`agents` are the stores of the agents. `units` maps the name of a source to its units."""

    def __init__(self, agents: ProfileStore, units: Mapping[str, Units] = _NONE) -> None:
        self._agents = agents
        self._units = dict(units)

    def add(self, units: Mapping[str, Units]) -> None:
        """Adds units. A known name keeps its units until `close`, because a refresh may be running in them."""
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
        """Closes the connections of all units."""
        for units in self._units.values():
            await units.close()
