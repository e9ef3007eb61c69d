"""A real broker process in a directory of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

KEY = "sk-ant-api03-" + "benchmark" * 8
EQUABOT = Path(sys.executable).with_name("equabot")


class Broker:
    """A started broker: where its files are, and what it costs."""

    def __init__(self, home: Path, process: "subprocess.Popen[bytes]", started: float) -> None:
        self.home = home
        self.process = process
        self.start_seconds = started
        self.socket = home / "run" / "main" / "broker.sock"
        self.dotenv = home / ".env"

    def resident(self) -> int:
        """Bytes of resident memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def broker(dotenv: str = f"ANTHROPIC_API_KEY={KEY}\n", config: Mapping[str, object] | None = None) -> Iterator[Broker]:
    """Starts `equabot serve` on a `.env` of that text; yields it once its health says SERVING."""
    with tempfile.TemporaryDirectory(prefix="equabot-bench-") as directory:
        home = Path(directory)
        (home / ".env").write_text(dotenv)
        health = home / "run" / "main" / "broker.sock"
        settings = {
            "listen": {"health": f"127.0.0.1:{free_port()}", "metrics": f"127.0.0.1:{free_port()}"},
            "agents": {"main": {"providers": ["*"], "max_leases": 1_000_000, "max_ttl": "24h"}},
            "leases": {"max_ttl": "24h"},
            "sources": [{"dotenv": {"path": str(home / ".env")}}],
            **(config or {}),
        }
        (home / "equabot.yaml").write_text(json.dumps(settings))  # JSON is YAML
        env = {"PATH": os.environ["PATH"], "EQUABOT_HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run")}
        began = time.perf_counter()
        # Not where the broker watches a file: whatever is printed would be a change of that directory.
        output = home / "output" / "log"
        output.parent.mkdir()
        with output.open("wb") as log:
            process = subprocess.Popen([EQUABOT, "serve"], env=env, stdout=log, stderr=log)
        try:
            _wait_serving(health, process, output)
            yield Broker(home, process, time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _wait_serving(path: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < give_up:
        if path.exists():
            with grpc.insecure_channel(f"unix:{path}") as channel:
                try:
                    request = health_pb2.HealthCheckRequest(service="readiness")
                    answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=1)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.RpcError:
                    pass
        time.sleep(0.002)
    raise SystemExit(f"the broker does not serve:\n{log.read_text()}")


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
