"""AcquireLease over a Unix socket against an empty handler, in turns, so that the machine's mood is shared."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from benchmarks._broker import Broker, broker
from benchmarks._load import Load, available, middle, unary
from benchmarks._row import Row
from equabot.broker.v1 import broker_pb2

ACQUIRE = "/equabot.broker.v1.Broker/AcquireLease"
ROUNDS = 5


def acquire(target: Broker, *, requests: int, in_flight: int, seconds: int = 5) -> Load:
    """Acquires, with leases that end by themselves after so many seconds."""
    request = broker_pb2.AcquireLeaseRequest(provider="anthropic", ttl=Duration(seconds=seconds))
    return unary(target.socket, ACQUIRE, request.SerializeToString(), requests=requests, in_flight=in_flight)


def rows() -> list[Row]:
    """Latency at one in flight; throughput at 1 and 32."""
    if not available():
        print("  skipped: h2load is not here (Debian: apt-get install nghttp2-client)", file=sys.stderr)
        return []
    found = []
    with broker() as ours, _empty() as path:
        for in_flight, requests in ((1, 6000), (32, 20000)):
            mine, empty = [], []
            for _ in range(ROUNDS):
                empty.append(unary(path, "/baseline/Empty", b"", requests=requests, in_flight=in_flight))
                mine.append(acquire(ours, requests=requests, in_flight=in_flight))
            base, load = middle(empty), middle(mine)
            found += [
                Row(f"acquire p50, {in_flight} in flight", load.p50, "µs"),
                Row(f"acquire p99, {in_flight} in flight", load.p99, "µs"),
                Row(f"acquire throughput, {in_flight} in flight", load.throughput, "/s"),
                Row(
                    f"acquire p50 / empty handler, {in_flight} in flight",
                    load.p50 / base.p50,
                    "x",
                    1.25 if in_flight == 1 else None,
                ),
                Row(
                    f"acquire throughput / empty handler, {in_flight} in flight",
                    load.throughput / base.throughput,
                    "x",
                    0.8,
                    at_least=True,
                ),
            ]
    return found


@contextmanager
def _empty() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "empty.sock")
        command = [sys.executable, "-m", "benchmarks._baseline", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield path
            finally:
                process.kill()
