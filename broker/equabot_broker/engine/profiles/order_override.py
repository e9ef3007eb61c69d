"""Orders that an operator sets at run time. They are kept in the agent's profile store, where other programs read them.

If profile stores are not a source, they are kept in the state of the broker.
"""

from collections.abc import Iterable
from functools import partial
from typing import Final

from equabot_broker.domain.errors import SourceNotSynced
from equabot_broker.engine.profiles.ingest import Ingest
from equabot_broker.engine.profiles.registry import ProfileRegistry
from equabot_broker.engine.profiles.resolver import Resolver
from equabot_broker.formats.auth_entries import with_order_of
from equabot_broker.ports import ProfileStore, StoreFault

_READ_WITHIN: Final = 5.0


class OrderOverrides:
    """Sets orders. `stores` is None if profile stores are not a source."""

    def __init__(self, *, resolver: Resolver, ingest: Ingest, registry: ProfileRegistry, stores: ProfileStore | None) -> None:
        self._resolver = resolver
        self._ingest = ingest
        self._registry = registry
        self._stores = stores

    def apply(self, stores: ProfileStore | None) -> None:
        """Another configuration is in effect."""
        self._stores = stores

    async def set(self, agent: str, provider: str, profiles: Iterable[str]) -> tuple[str, ...]:
        """Stores the agent's order, or clears it if `profiles` is empty. Returns it when it is in effect.

        Raises like `Resolver.check_order`, and SourceNotSynced for a store that cannot be written or read again.
        """
        provider, wanted = self._resolver.check_order(agent, provider, profiles)
        if self._stores is None:
            return self._resolver.set_order(agent, provider, wanted)
        change = partial(with_order_of, provider=provider, ids=wanted, catalog=self._resolver.catalog)
        try:
            await self._stores.edit(agent, change)
        except StoreFault as fault:
            raise SourceNotSynced(str(fault)) from None
        self._resolver.set_order(agent, provider, ())
        key = (agent, provider)
        if not await self._ingest.wait_for(lambda: self._registry.material.orders.get(key, ()) == wanted, within=_READ_WITHIN):
            raise SourceNotSynced("the order is stored, but its store has not been read again yet: run `equabot doctor`")
        return wanted
