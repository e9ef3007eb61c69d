"""The profile stores of the agents. A change that any program writes into a store is served at once.

The unit of an update is one agent's store. The composition root passes in the classes that read and write the files.
"""

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import ReadUnit, SourceEvent, SourceFault, Unit, UnitChanged, UnitRemoved, UnitsListed
from equabot_broker.formats.auth_entries import store_unit
from equabot_broker.ports import StoreFault
from equabot_broker.sources._watching import Changes, Watch
from equabot_broker.sources.declaration import SourceKind, Store
from equabot_broker.telemetry.incidents import incident

KIND: Final = "profile_store"


class ProfileStores:
    """The source `profile_store`. Its units are the agents that have a store, by name. All agents may use the store of `main`.

    A store that cannot be read or parsed fails only its own unit.
    """

    name = KIND

    def __init__(self, stores: Mapping[str, Store], *, rules: DiscoveryRules, watch: Watch) -> None:
        self._stores = stores
        self._rules = rules
        self._watch = watch
        self._found: dict[str, ReadUnit] = {}

    async def events(self) -> AsyncGenerator[SourceEvent, None]:
        """The content of the stores, and then each change of it."""
        served: dict[str, ReadUnit] | None = None
        async with aclosing(self._watch.rounds(self._read)) as rounds:
            async for changes in rounds:
                event = self._event(None if changes.asked else served)
                served = dict(self._found)
                if event is not None:
                    yield event

    def reread(self) -> None:
        """Reads them again."""
        self._watch.ask()

    def _event(self, served: dict[str, ReadUnit] | None) -> SourceEvent | None:
        found = self._found
        changed = [] if served is None else [agent for agent in self._stores if found.get(agent) != served.get(agent)]
        if served is not None and not changed:
            return None
        if len(changed) == 1:
            match found.get(changed[0]):
                case Unit() as unit:
                    return UnitChanged(unit)
                case None:
                    return UnitRemoved(changed[0])
        units = tuple(unit for unit in found.values() if isinstance(unit, Unit))
        return UnitsListed(units, {agent: why for agent, why in found.items() if isinstance(why, str)})

    # --- in a thread --------------------------------------------------------------------------------------------

    def _read(self, changes: Changes) -> None:
        for agent, store in self._stores.items():
            if changes.everything or agent in changes.names:
                with self._watch.interests(agent):
                    for file in store.files:
                        self._watch.path(agent, file)
                    self._read_store(agent, store)

    def _read_store(self, agent: str, store: Store) -> None:
        try:
            document, doubts = store.inspect()
        except StoreFault as fault:
            self._found[agent] = str(fault)
            self._watch.unread(agent)
            return
        except Exception as error:  # noqa: BLE001 - a port: the other agents' stores serve
            self._found[agent] = f"{store.path} cannot be read: {incident('source', str(store.path), error)}"
            self._watch.unread(agent)
            return
        if not document.entries and not os.path.exists(store.path):  # noqa: PTH110  (which never raises)
            self._found.pop(agent, None)
            return
        origin = str(store.path)
        unit = store_unit(document, rules=self._rules, source=self.name, name=agent, origin=origin, owner=agent)
        faults = (*(SourceFault(origin, doubt) for doubt in doubts), *unit.faults)
        self._found[agent] = Unit(agent, unit.profiles, faults, unit.owner, unit.usage, unit.orders)


PROFILE_STORE: Final = SourceKind(
    name=KIND,
    means="The agents' stores, `auth-profiles.json`.",
    build=lambda _, context: ProfileStores(context.stores, rules=context.rules, watch=Watch(context.clock)),
    made_of=lambda context: tuple(context.stores),
)
