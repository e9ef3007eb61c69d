"""Traffic, outcomes and latency of the last minutes, from the broker's counters as they were read."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from equabot_broker.dashboard.metrics_reading import Labels, Samples
from equabot_broker.parsing.untrusted_json import Json

EVERY: Final = 5.0
"""Seconds between two readings."""
_KEPT: Final = 121
"""Readings: ten minutes."""
_ROWS: Final = 50
"""Rows of a table."""
_CLASSES: Final = ("ok", "client", "limited", "server")
_TOO_MANY: Final = 429

Counted = Mapping[str, float]


class TrafficHistory:
    """The last readings, oldest first."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, Samples]] = deque(maxlen=_KEPT)

    def add(self, at: float, samples: Samples) -> None:
        """One more reading, at seconds since the epoch."""
        self._readings.append((at, {name: samples[name] for name in _USED if name in samples}))

    def view(self) -> Json:
        """The series between each two readings, and the totals of the last one, for the page."""
        pairs = list(pairwise(self._readings))
        last = self._readings[-1][1] if self._readings else {}
        return {
            "times": [round(after[0], 1) for _, after in pairs],
            "requests": {
                name: [max(_classes(after[1])[name] - _since(before[1], after[1], name), 0.0) for before, after in pairs]
                for name in _CLASSES
            },
            "refused": [_rise(before[1], after[1], "equabot_gateway_refusals_total") for before, after in pairs],
            "granted": [_rise(before[1], after[1], "equabot_leases_granted_total") for before, after in pairs],
            "denied": [_rise(before[1], after[1], "equabot_leases_denied_total") for before, after in pairs],
            "latency": _latency(pairs, "equabot_gateway_request_seconds_bucket"),
            "acquire": _latency(pairs, "equabot_acquire_seconds_bucket"),
            "outcomes": _table(last, "equabot_outcomes_total", ("provider", "outcome")),
            "refreshes": _table(last, "equabot_refreshes_total", ("provider", "outcome")),
            "refusals": _table(last, "equabot_gateway_refusals_total", ("provider", "reason")),
            "rotation": quantile(_buckets({}, last, "equabot_rotation_seconds_bucket"), 0.95),
        }


_USED: Final = (
    "equabot_gateway_requests_total", "equabot_gateway_refusals_total", "equabot_leases_granted_total",
    "equabot_leases_denied_total", "equabot_gateway_request_seconds_bucket", "equabot_acquire_seconds_bucket",
    "equabot_rotation_seconds_bucket", "equabot_outcomes_total", "equabot_refreshes_total",
)  # fmt: skip


def _total(samples: Samples, name: str) -> float:
    return sum(samples.get(name, {}).values())


def _rise(before: Samples, after: Samples, name: str) -> float:
    """A counter that fell belongs to a broker that has restarted: all of it is new."""
    was, now = _total(before, name), _total(after, name)
    return now - was if now >= was else now


def _classes(samples: Samples) -> Counted:
    found = dict.fromkeys(_CLASSES, 0.0)
    for labels, count in samples.get("equabot_gateway_requests_total", {}).items():
        found[_class(dict(labels).get("status", ""))] += count
    return found


def _class(status: str) -> str:
    number = int(status) if status.isascii() and status.isdecimal() else 0
    if number == _TOO_MANY:
        return "limited"
    if 100 <= number < 400:
        return "ok"
    return "client" if 400 <= number < 500 else "server"


def _since(before: Samples, after: Samples, name: str) -> float:
    restarted = _total(after, "equabot_gateway_requests_total") < _total(before, "equabot_gateway_requests_total")
    return 0.0 if restarted else _classes(before)[name]


def _latency(pairs: Sequence[tuple[tuple[float, Samples], tuple[float, Samples]]], name: str) -> Json:
    """Seconds below which half, and 95 of 100, of the observations are; None between readings without one."""
    rises = [_buckets(before[1], after[1], name) for before, after in pairs]
    return {key: [quantile(rise, share) for rise in rises] for key, share in (("p50", 0.5), ("p95", 0.95))}


def _buckets(before: Samples, after: Samples, name: str) -> list[tuple[float, float]]:
    """The cumulative counts by upper bound, of what came between."""
    was, now = before.get(name, {}), after.get(name, {})
    restarted = sum(now.values()) < sum(was.values())
    rises = ((_bound(labels), count - (0.0 if restarted else was.get(labels, 0.0))) for labels, count in now.items())
    return sorted(rises)


def _bound(labels: Labels) -> float:
    try:
        return float(dict(labels).get("le", "inf"))
    except ValueError:
        return float("inf")


def quantile(buckets: Iterable[tuple[float, float]], share: float) -> float | None:
    """As Prometheus' `histogram_quantile`: linear within a bucket; the last finite bound where it is above all."""
    rows = list(buckets)
    total = rows[-1][1] if rows else 0.0
    if total <= 0:
        return None
    rank, below, floor = share * total, 0.0, 0.0
    for bound, count in rows:
        if count >= rank and count > below:
            return floor if bound == float("inf") else round(floor + (bound - floor) * (rank - below) / (count - below), 6)
        below, floor = count, bound
    return floor


def _table(samples: Samples, name: str, keys: tuple[str, str]) -> list[Json]:
    rows = [({key: dict(labels).get(key, "") for key in keys}, count) for labels, count in samples.get(name, {}).items()]
    rows.sort(key=lambda row: (-row[1], *row[0].values()))
    return [{**labels, "count": count} for labels, count in rows[:_ROWS]]
