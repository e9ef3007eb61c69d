"""What a scrape reads: how things are at one instant, and what has been counted so far."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_ACQUIRE_BOUNDS: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_GATEWAY_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_ROTATION_BOUNDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialGauge:
    """One profile. `expires_at` in seconds since the epoch; `agent` is empty for a profile of every agent."""

    profile: str
    provider: str
    state: str
    expires_at: float | None = None
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGauge:
    """One source: seconds since it was last read in full (None: never), and whether it, or a part of it, cannot be read now."""

    source: str
    sync_age: float | None
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the gauges show. `leases` counts living leases by (agent, provider), `streams` open ones by agent; `suspended` says
    of each agent whether it is."""

    credentials: Sequence[CredentialGauge] = ()
    sources: Sequence[SourceGauge] = ()
    leases: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))
    streams: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    suspended: Mapping[str, bool] = field(default_factory=lambda: MappingProxyType({}))
    store_fault: bool = False
    audit_fault: bool = False
    anchor_faults: frozenset[str] = frozenset()
    audit_lost: int = 0
    audit_sequence: int = 0
    config_reload_ok: bool = True
    config_reloaded_at: float = 0.0


class Histogram:
    """Counts of observations up to each bound (seconds), the last one without, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Tallies:
    """What has been counted since the broker began."""

    __slots__ = (
        "acquire", "authorized", "callers", "denied", "gateway", "granted", "open", "outcomes", "refreshes", "rotation",
        "skipped", "turned_away", "used",
    )  # fmt: skip

    def __init__(self) -> None:
        self.granted = 0
        self.denied: Counter[str] = Counter()
        self.callers: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.refreshes: Counter[tuple[str, str]] = Counter()
        self.authorized: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.used: Counter[tuple[str, str]] = Counter()
        self.turned_away: Counter[tuple[str, str]] = Counter()
        self.skipped = 0
        self.acquire = Histogram(_ACQUIRE_BOUNDS)
        self.gateway = Histogram(_GATEWAY_BOUNDS)
        self.rotation = Histogram(_ROTATION_BOUNDS)
