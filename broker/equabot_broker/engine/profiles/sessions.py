"""Sessions: the profile that each has pinned, and the profiles that served it before."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from equabot_broker.ports import StateStore

_KEPT: Final = 10_000
"""The number of pins and of choices that are kept for each agent, the newest ones: agents name their sessions freely."""

K = TypeVar("K", bound=tuple[str, ...])
V = TypeVar("V")

SessionKey = tuple[str, str, str]
"""Agent, session, provider."""


class _Newest(Generic[K, V]):
    """Values by session, with a limit for each agent."""

    def __init__(self) -> None:
        self._by_agent: defaultdict[str, OrderedDict[K, V]] = defaultdict(OrderedDict)

    def get(self, key: K) -> V | None:
        return self._by_agent[key[0]].get(key)

    def put(self, key: K, value: V) -> K | None:
        """Stores the value. Returns the oldest key if it was removed for this one."""
        known = self._by_agent[key[0]]
        known[key] = value
        known.move_to_end(key)
        return known.popitem(last=False)[0] if len(known) > _KEPT else None

    def pop(self, key: K) -> V | None:
        return self._by_agent[key[0]].pop(key, None)


class Sessions:
    """Pins, which are stored, and automatic choices, which are only in memory."""

    def __init__(self, *, store: StateStore, pins: Mapping[SessionKey, tuple[str, bool]]) -> None:
        self._store = store
        self._pins: _Newest[SessionKey, tuple[str, bool]] = _Newest()
        self._served: _Newest[tuple[str, str, str, str], tuple[str, str]] = _Newest()
        for key, pin in pins.items():
            self._pins.put(key, pin)

    def pinned(self, key: SessionKey) -> tuple[str, bool]:
        """The pinned profile id (or empty), and whether the pin is strict."""
        return self._pins.get(key) or ("", False)

    def pin(self, key: SessionKey, profile: str, *, strict: bool) -> None:
        """Pins the session to a profile."""
        dropped = self._pins.put(key, (profile, strict))
        self._store.put_pin(key, (profile, strict))
        if dropped is not None:
            self._store.put_pin(dropped, None)
        self._store.flush()

    def unpin(self, key: SessionKey) -> None:
        """Removes the pin, if there is one."""
        if self._pins.pop(key) is not None:
            self._store.put_pin(key, None)
            self._store.flush()

    def served(self, key: SessionKey, client: str) -> tuple[str, str]:
        """The profiles that served the session's requests of this client program first and last (or empty)."""
        return self._served.get((*key, client)) or ("", "")

    def serve(self, key: SessionKey, client: str, *, first: str, last: str) -> None:
        """Remembers the profiles that served first and last."""
        self._served.put((*key, client), (first, last))
