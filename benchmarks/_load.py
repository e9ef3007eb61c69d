"""Load from h2load (Debian: nghttp2-client), which costs a fraction of what it measures."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True)
class Load:
    """Latencies in microseconds, throughput in requests a second."""

    p50: float
    p99: float
    throughput: float


def available() -> bool:
    """Whether the generator is on this machine."""
    return shutil.which("h2load") is not None


def unary(socket: Path, method: str, message: bytes, *, requests: int, in_flight: int) -> Load:
    """Calls a gRPC method over a Unix socket on one connection, `in_flight` at a time."""
    where = ["-c", "1", "-m", str(in_flight), "-B", f"unix:{socket}", f"http://localhost{method}"]
    headers = {"content-type": "application/grpc", "te": "trailers"}
    return _run(where, struct.pack(">BI", 0, len(message)) + message, headers, requests=requests)


def post(url: str, body: bytes, headers: Mapping[str, str], *, requests: int, connections: int) -> Load:
    """Posts over HTTP/1.1, one request at a time on each connection."""
    return _run(["--h1", "-c", str(connections), url], body, headers, requests=requests)


def _run(where: Sequence[str], content: bytes, headers: Mapping[str, str], *, requests: int) -> Load:
    with tempfile.TemporaryDirectory() as directory:
        body = Path(directory, "body")
        body.write_bytes(content)
        log = Path(directory, "log")
        given = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        command = ["h2load", "-n", str(requests), "-t", "1", "-d", str(body), f"--log-file={log}", *given, *where]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    if f"{requests} succeeded" not in done.stdout:
        raise RuntimeError(f"h2load: {done.stdout}")
    # The first tenth warms up both sides.
    rows = sorted(rows, key=lambda row: int(row[0]))[requests // 10 :]
    times = sorted(int(row[2]) for row in rows)
    span = (int(rows[-1][0]) + int(rows[-1][2]) - int(rows[0][0])) / 1e6
    return Load(times[len(times) // 2], times[int(len(times) * 0.99)], len(rows) / span)


def middle(loads: list[Load]) -> Load:
    """The medians of several runs."""
    return Load(*(median(getattr(load, name) for load in loads) for name in ("p50", "p99", "throughput")))
