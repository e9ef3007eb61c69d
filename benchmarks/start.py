"""From exec to SERVING, on local sources."""

from statistics import median

from benchmarks._broker import broker
from benchmarks._row import Row


def rows() -> list[Row]:
    """The median of seven starts."""
    times = []
    for _ in range(7):
        with broker() as started:
            times.append(started.start_seconds)
    return [Row("start to SERVING", median(times), "s", 0.7)]
