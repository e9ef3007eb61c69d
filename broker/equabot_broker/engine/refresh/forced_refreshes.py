"""How often a refresh may be forced. Each uses up a refresh token, so that no reported outcome brings the next one nearer."""

from dataclasses import dataclass
from typing import Final

from equabot_broker.engine.profiles.registry import Key
from equabot_broker.ports import Clock

APART: Final = 60.0
"""The least seconds between two forced refreshes of a profile; it doubles while they go on."""
APART_MOST: Final = 3600.0
_CALM: Final = 2 * APART_MOST
"""After so many seconds without one the wait is the first again."""


@dataclass(slots=True)
class _Last:
    """The steady instant of a profile's last forced refresh, and how many seconds the next one has to wait for."""

    at: float
    apart: float = APART


class ForcedRefreshes:
    """Allows forced refreshes, at most 1 + T/60 of a profile in any T seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[Key, _Last] = {}

    def begin(self, key: Key) -> bool:
        """Whether another one is due, which begins then."""
        now, last = self._clock.steady(), self._last.get(key)
        if last is None or now - last.at >= _CALM:
            self._last[key] = _Last(now)
        elif now - last.at < last.apart:
            return False
        else:
            self._last[key] = _Last(now, min(last.apart * 2, APART_MOST))
        return True

    def ended(self, key: Key) -> None:
        """The one that was begun has brought new material: the wait begins now."""
        if key in self._last:
            self._last[key].at = self._clock.steady()

    def forget(self, key: Key) -> None:
        """The profile is gone."""
        self._last.pop(key, None)
