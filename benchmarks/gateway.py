"""The gateway against the same Envoy without us, and against the LiteLLM proxy, in turns on one machine.

LiteLLM is installed into a virtual environment of its own (build/litellm) where it is not there yet.
"""

import asyncio
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import yaml

import equabot_client
from benchmarks._broker import Broker, broker, free_port
from benchmarks._load import Load, available, middle, post
from benchmarks._row import Row

ROUNDS = 3
STREAMS = 500
EVENTS = 10
KEY = "sk-proj-" + "benchmark" * 8
BODY = json.dumps({"model": "gpt-bench", "messages": [{"role": "user", "content": "hello"}]}).encode()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-bench",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
)
ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
LITELLM = Path("build/litellm")
MASTER = "sk-" + "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Door:
    """One way to the vendor."""

    url: str
    headers: Mapping[str, str]

    def load(self, *, requests: int, connections: int) -> Load:
        """Posts a request to a model."""
        headers = {"content-type": "application/json", **self.headers}
        return post(f"{self.url}/chat/completions", BODY, headers, requests=requests, connections=connections)


def rows() -> list[Row]:
    """Added latency, throughput, the first event of a stream, many streams, memory."""
    if not available():
        print("  skipped: h2load is not here (Debian: apt-get install nghttp2-client)", file=sys.stderr)
        return []
    found = []
    with _vendor() as vendor, _ours(vendor) as (ours, mine), _bare(ours, mine) as bare:
        found += _compared(mine, bare)
        found += _revoked(ours, mine)
        with _litellm(vendor) as other:
            if other is not None:
                found += _against(mine, other)
    with _streaming_vendor() as vendor, _ours(vendor) as (ours, mine), _bare(ours, mine) as bare:
        found += _streams(ours, mine, bare)
    return found


def _compared(mine: Door, bare: Door) -> list[Row]:
    found = []
    for connections, requests in ((1, 3000), (16, 12000)):
        pairs = [(bare.load(requests=requests, connections=connections), mine.load(requests=requests, connections=connections))
                 for _ in range(ROUNDS)]  # fmt: skip
        base, load = middle([pair[0] for pair in pairs]), middle([pair[1] for pair in pairs])
        limit = 1.0 if connections == 1 else None
        found += [
            Row(f"gateway added p50, {connections} connections", (load.p50 - base.p50) / 1000, "ms", limit),
            Row(f"gateway p99, {connections} connections", load.p99 / 1000, "ms"),
            Row(f"gateway throughput, {connections} connections", load.throughput, "/s"),
            Row(f"gateway throughput / bare Envoy, {connections} connections", load.throughput / base.throughput, "x"),
        ]
    return found


def _revoked(ours: Broker, mine: Door) -> list[Row]:
    """From the word that revokes a lease to the refusal of the next request with its token."""
    times = []
    with equabot_client.connect(f"unix:{ours.socket}") as connection:
        for _ in range(100):
            lease = connection.acquire("openai", delivery="brokered", ttl=timedelta(hours=1))
            door = Door(mine.url, lease.headers)
            if _status(door) != 200:
                raise RuntimeError("a lease that was just granted is refused")
            began = time.perf_counter()
            connection.revoke(lease.id)
            if _status(door) != 401:
                raise RuntimeError("a lease that was revoked is good")
            times.append(time.perf_counter() - began)
    times.sort()
    return [
        Row("revocation to the refused request, p50", times[50] * 1000, "ms"),
        Row("revocation to the refused request, p99", times[98] * 1000, "ms", 10),
    ]


def _status(door: Door) -> int:
    request = urllib.request.Request(f"{door.url}/chat/completions", BODY, {"content-type": "application/json", **door.headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def _against(mine: Door, other: Door) -> list[Row]:
    theirs = other.load(requests=1500, connections=16)
    load = mine.load(requests=12000, connections=16)
    return [
        Row("LiteLLM throughput, 16 connections", theirs.throughput, "/s"),
        Row("gateway throughput / LiteLLM, 16 connections", load.throughput / theirs.throughput, "x", 20, at_least=True),
        Row("LiteLLM p50 / gateway p50, 16 connections", theirs.p50 / load.p50, "x"),
    ]


def _streams(ours: Broker, mine: Door, bare: Door) -> list[Row]:
    first = {name: _first_event(door) for name, door in (("bare", bare), ("mine", mine))}
    envoy = next(child for child in psutil.Process(ours.process.pid).children() if child.name() == "envoy")
    before = ours.resident() + int(envoy.memory_info().rss)
    began = time.perf_counter()
    counts, peak = asyncio.run(_many(mine, lambda: ours.resident() + int(envoy.memory_info().rss)))
    return [
        Row("first event of a stream, added p50", (first["mine"] - first["bare"]) * 1000, "ms"),
        Row(f"{STREAMS} streams at once, whole", sum(count == EVENTS for count in counts), "", STREAMS, at_least=True),
        Row(f"{STREAMS} streams at once, seconds", time.perf_counter() - began, "s"),
        Row("resident, broker and Envoy, idle", before / 2**20, "MiB"),
        Row(f"resident, broker and Envoy, {STREAMS} streams", peak / 2**20, "MiB"),
    ]


def _first_event(door: Door) -> float:
    async def once() -> float:
        began = time.perf_counter()
        reader, writer = await _ask(door)
        while not (await reader.readline()).startswith(b"data:"):
            pass
        writer.close()
        return time.perf_counter() - began

    return median(asyncio.run(once()) for _ in range(100))


async def _many(door: Door, resident: Callable[[], int]) -> tuple[list[int], int]:
    async def one() -> int:
        reader, writer = await _ask(door)
        count = 0
        while line := await reader.readline():
            count += line.startswith(b"data:")
            if count == EVENTS:
                break
        writer.close()
        return count

    tasks = [asyncio.ensure_future(one()) for _ in range(STREAMS)]
    peak = 0
    while not all(task.done() for task in tasks):
        peak = max(peak, resident())
        await asyncio.sleep(0.25)
    return [await task for task in tasks], peak


async def _ask(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, path = door.url.removeprefix("http://").split("/", 1)
    reader, writer = await asyncio.open_connection(*host.split(":"))
    given = "".join(f"{name}: {value}\r\n" for name, value in door.headers.items())
    head = f"POST /{path}/chat/completions HTTP/1.1\r\nhost: {host}\r\n{given}content-length: {len(BODY)}\r\n\r\n"
    writer.write(head.encode() + BODY)
    return reader, writer


# -- the doors ---------------------------------------------------------------------------------------------------------


@contextmanager
def _ours(vendor: str) -> Iterator[tuple[Broker, Door]]:
    port = free_port()
    config = {
        "gateway": {"mode": "child", "envoy": ENVOY},
        "providers": {"openai": {"base_url": f"{vendor}/v1"}},
        "listen": {
            "health": f"127.0.0.1:{free_port()}", "metrics": f"127.0.0.1:{free_port()}", "gateway": f"127.0.0.1:{port}",
        },
    }  # fmt: skip
    with broker(f"OPENAI_API_KEY={KEY}\n", config) as ours, equabot_client.connect(f"unix:{ours.socket}") as connection:
        lease = connection.acquire("openai", delivery="brokered", ttl=timedelta(hours=1))
        yield ours, Door(f"http://127.0.0.1:{port}/openai", lease.headers)


@contextmanager
def _bare(ours: Broker, mine: Door) -> Iterator[Door]:
    """The configuration of ours, without what makes it ours."""
    port = free_port()
    config: Any = copy.deepcopy(yaml.safe_load((ours.home / "run" / "gateway" / "envoy.yaml").read_text()))
    listener = config["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["access_log"]
    manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] != "envoy.filters.http.ext_authz"]
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            del route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]
    with _envoy(config, port):
        yield Door(f"http://127.0.0.1:{port}/openai", mine.headers)


@contextmanager
def _vendor() -> Iterator[str]:
    """One that answers as fast as may be."""
    port = free_port()
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "vendor",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "vendor",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
                            "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"}}],
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    with _envoy({"static_resources": {"listeners": [listener]}}, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _streaming_vendor() -> Iterator[str]:
    """One that sends an event at once and the others a second apart."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "benchmarks._vendor", str(port), str(EVENTS)]) as process:
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def _envoy(config: Mapping[str, object], port: int) -> Iterator[None]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(config, file)
        file.flush()
        words = [ENVOY, "-c", file.name, "--concurrency", "1", "--use-dynamic-base-id", "-l", "error"]
        with subprocess.Popen(words) as process:
            try:
                _wait(port)
                yield
            finally:
                process.kill()


@contextmanager
def _litellm(vendor: str) -> Iterator[Door | None]:
    program = LITELLM / "bin" / "litellm"
    if not program.exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "venv", "--quiet", LITELLM], check=True)
        told = subprocess.run([uv, "pip", "install", "--quiet", "--python", LITELLM, "litellm[proxy]"], check=False)
        if told.returncode:
            print("  LiteLLM cannot be installed: skipped", file=sys.stderr)
            yield None
            return
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        model = {"model": "openai/gpt-bench", "api_base": f"{vendor}/v1", "api_key": KEY}
        config = Path(directory, "config.yaml")
        config.write_text(json.dumps({"model_list": [{"model_name": "gpt-bench", "litellm_params": model}]}))
        environ = {
            "PATH": os.environ["PATH"], "HOME": directory, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": MASTER,
        }  # fmt: skip
        words = [program, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        with subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                _wait(port, seconds=90)
                _wait_answer(f"http://127.0.0.1:{port}/v1/chat/completions")
                yield Door(f"http://127.0.0.1:{port}/v1", {"authorization": f"Bearer {MASTER}"})
            finally:
                process.kill()


def _wait(port: int, *, seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            asyncio.run(_connect(port))
            return
        if time.monotonic() > give_up:
            raise SystemExit(f"nothing listens on port {port} after {seconds:.0f} s")
        time.sleep(0.05)


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def _wait_answer(url: str) -> None:
    request = urllib.request.Request(url, BODY, {"content-type": "application/json", "authorization": f"Bearer {MASTER}"})
    for _ in range(100):
        with suppress(OSError), urllib.request.urlopen(request, timeout=10):
            return
        time.sleep(0.3)
    raise SystemExit("LiteLLM does not answer")
