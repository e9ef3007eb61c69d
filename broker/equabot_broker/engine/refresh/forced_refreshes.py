"""Limits forced refreshes. Each uses up a refresh token, so that reported outcomes must not make them more frequent."""

from dataclasses import dataclass
from typing import Final

from equabot_broker.engine.profiles.registry import Key
from equabot_broker.ports import Clock

APART: Final = 60.0
"""The shortest time in seconds between two forced refreshes of a profile. It doubles with each of them."""
APART_MOST: Final = 3600.0
_CALM: Final = 2 * APART_MOST
"""Seconds without a forced refresh after which the wait resets."""


@dataclass(slots=True)
class _Last:
    """The last forced refresh of a profile (steady), and the seconds until the next one is allowed."""

    at: float
    apart: float = APART


class ForcedRefreshes:
    """Allows forced refreshes, at most 1 + T/60 of a profile in any T seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[Key, _Last] = {}

    def begin(self, key: Key) -> bool:
        """Whether a forced refresh is allowed now. If so, it counts as begun."""
        now, last = self._clock.steady(), self._last.get(key)
        if last is None or now - last.at >= _CALM:
            self._last[key] = _Last(now)
        elif now - last.at < last.apart:
            return False
        else:
            self._last[key] = _Last(now, min(last.apart * 2, APART_MOST))
        return True

    def ended(self, key: Key) -> None:
        """The forced refresh has delivered new material: the wait starts now."""
        if key in self._last:
            self._last[key].at = self._clock.steady()

    def forget(self, key: Key) -> None:
        """Removes a deleted profile."""
        self._last.pop(key, None)
