"""Acquire must not care how much the broker already holds."""

import sys
import tempfile
from pathlib import Path

from benchmarks._broker import broker
from benchmarks._load import available, middle
from benchmarks._row import Row
from benchmarks.acquire import acquire

_IN_ONE = 1_000
"""Profiles in one directory."""


def rows() -> list[Row]:
    """10 → 10,000 profiles of one provider; 100 → 100,000 active leases."""
    if not available():
        print("  skipped: h2load is not here (Debian: apt-get install nghttp2-client)", file=sys.stderr)
        return []
    few, many = (_with_profiles(count) for count in (10, 10_000))
    light, heavy = (_with_leases(count) for count in (100, 100_000))
    return [
        Row("acquire p50, 10,000 profiles / 10", many / few, "x", 1.5),
        Row("acquire p50, 100,000 leases / 100", heavy / light, "x", 1.5),
    ]


def _with_profiles(count: int) -> float:
    with tempfile.TemporaryDirectory(prefix="equabot-bench-") as directory:
        for first in range(0, count, _IN_ONE):
            folder = Path(directory) / f"team-{first // _IN_ONE}"
            folder.mkdir()
            for index in range(first, min(first + _IN_ONE, count)):
                (folder / f"ANTHROPIC_API_KEY_{index}").write_text(f"sk-ant-api03-{index:032}")
        with broker("", {"sources": [{"mounted": {"path": directory}}]}) as ours:
            return middle([acquire(ours, requests=3000, in_flight=1) for _ in range(3)]).p50


def _with_leases(count: int) -> float:
    with broker() as ours:
        acquire(ours, requests=count, in_flight=32, seconds=7200)
        return middle([acquire(ours, requests=3000, in_flight=1) for _ in range(3)]).p50
