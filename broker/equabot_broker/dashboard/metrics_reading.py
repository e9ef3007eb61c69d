"""The broker's metrics, read from its own listener in Prometheus' text format."""

import asyncio
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

_LARGEST: Final = 4 << 20
"""Bytes of an answer that are read."""
_WITHIN: Final = 5.0
"""Seconds for the whole answer."""
_SAMPLE: Final = re.compile(r"(equabot_[a-z_]{1,100})(?:\{(.{0,2000})\})? (\S{1,40})")
_LABEL: Final = re.compile(r'([a-z_]{1,40})="((?:[^"\\]|\\.)*)",?')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n"}

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[str, Mapping[Labels, float]]
"""By name, then by the labels' names and values in their order."""


class MetricsAbsent(Exception):
    """Why there are no metrics, in one sentence."""


async def scrape(host: str, port: int) -> Samples:
    """What the metrics listener at the address says. Raises MetricsAbsent."""
    where = f"{host}:{port}"
    try:
        async with asyncio.timeout(_WITHIN):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = await _read(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        raise MetricsAbsent(f"No metrics listener answers at {where} (listen.metrics).") from None
    status, _, rest = answer.partition(b"\r\n")
    head, _, body = rest.partition(b"\r\n\r\n")
    if not status.startswith(b"HTTP/1.1 200") or b"chunked" in head.lower():
        raise MetricsAbsent(f"What answers at {where} is not the broker's metrics listener (listen.metrics).")
    return parse(body.decode("utf-8", "replace"))


async def _read(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    while (part := await reader.read(1 << 16)) and sum(map(len, parts)) < _LARGEST:
        parts.append(part)
    return b"".join(parts)


def parse(text: str) -> Samples:
    """The broker's own samples. Lines that are not such a sample are left out."""
    found: dict[str, dict[Labels, float]] = {}
    for line in text.split("\n"):
        sample = _SAMPLE.fullmatch(line)
        if sample is None:
            continue
        with suppress(ValueError):
            value = float(sample[3])
            if math.isfinite(value):
                found.setdefault(sample[1], {})[_labels(sample[2] or "")] = value
    return MappingProxyType(found)


def _labels(text: str) -> Labels:
    """Raises ValueError."""
    pairs = list(_LABEL.finditer(text))
    if "".join(pair[0] for pair in pairs) != text:
        raise ValueError("labels")
    return tuple((pair[1], _ESCAPE.sub(lambda one: _ESCAPED.get(one[1], one[1]), pair[2])) for pair in pairs)
