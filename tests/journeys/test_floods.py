"""A real broker flooded from every side: its memory grows little and falls again, and whoever has business with it is served.

The load is bounded, and all of it on loopback.
"""

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from equabot_client import connect, health
from tests.fakes.http2 import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Address,
    Http2,
    call,
    field,
    frame,
    message,
)  # fmt: skip
from tests.fakes.issuer import ISSUER, Issuer
from tests.journeys.running import KEY, RunningBroker
from tests.kubernetes.certificates import Authority
from tests.ports import free_port

MOST = 32 << 10
"""KiB by which a flood may grow the broker."""
MEBIBYTE = 1 << 20
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
ACQUIRE = "/equabot.broker.v1.Broker/AcquireLease"
AUTHORITY, TOKENS = Authority("broker"), Issuer("ES256")
CONFIG = """\
listen:
  agents:
    certificate: tls.crt
    key: tls.key
    service_accounts: {{address: "127.0.0.1:{port}", validate: published_keys, keys: keys.json, issuer: "{issuer}"}}
agents:
  main: {{}}
  remote: {{providers: [anthropic], service_accounts: [agents/reviewer]}}
  other: {{providers: [anthropic]}}
sources: [dotenv]
"""


@dataclass
class Flooded:
    """A broker that listens everywhere, and what it weighed before anything happened to it."""

    broker: RunningBroker
    port: int
    directory: Path
    before: int = 0

    def of(self, name: str) -> int:
        """A number that the kernel knows of the process."""
        assert self.broker.process is not None
        status = Path(f"/proc/{self.broker.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")))

    @property
    def grown(self) -> int:
        """KiB of resident memory more than before."""
        return self.of("VmRSS") - self.before

    def connect(self, listener: str, stack: ExitStack) -> Http2:
        """As a stranger, or as the agent `main`."""
        host, port = self.broker.health.split(":")
        addresses: dict[str, Address] = {
            "health": (host, int(port)),
            "tls": ("127.0.0.1", self.port),
            "agent": str(self.broker.socket()),
        }
        return stack.enter_context(Http2(addresses[listener], tls=listener == "tls"))

    def serve_all(self) -> None:
        """Whoever has business with the broker: a probe, other agents here and elsewhere, the operator, a scraper."""
        assert health.check("liveness", address=self.broker.health, timeout=60)
        with self.broker.connect("other") as agent:
            agent.acquire("anthropic")
        ca, token = str(self.directory / "ca.crt"), str(self.directory / "token")
        with connect(f"localhost:{self.port}", timeout=60, ca_file=ca, token_file=token) as agent:
            agent.acquire("anthropic")
        assert health.check("liveness", address=str(self.broker.socket("admin")), timeout=60)
        assert "equabot_build_info" in self.broker.scrape()


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flooded]:
    """One for all floods."""
    port, directory = free_port(), tmp_path_factory.mktemp("pod")
    broker = RunningBroker(credentials={}, dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=CONFIG.format(port=port, issuer=ISSUER))
    pair = AUTHORITY.server("localhost", "127.0.0.1")
    (broker.home / "tls.crt").write_bytes(pair.certificate)
    (broker.home / "tls.key").write_bytes(pair.key)
    (broker.home / "tls.key").chmod(0o600)
    (broker.home / "keys.json").write_text(json.dumps({"keys": [TOKENS.jwk()]}))
    (directory / "ca.crt").write_bytes(AUTHORITY.pem)
    (directory / "token").write_text(TOKENS.token("agents/reviewer", expires_at=4_000_000_000))
    made = Flooded(broker, port, directory)
    try:
        broker.start()
        for _ in range(3):
            made.serve_all()
        made.before = made.of("VmRSS")
        yield made
    finally:
        broker.close()


Flood = Callable[[Callable[[], Http2]], None]


def megabytes(connections: int, streams: int) -> Flood:
    """A mebibyte to each of many calls, as far as the broker takes it."""

    def flood(open_one: Callable[[], Http2]) -> None:
        for _ in range(connections):
            connection = open_one()
            calls = [connection.open(ACQUIRE) for _ in range(streams)]
            whole = message(MEBIBYTE)
            for at in range(0, len(whole), 16_000):
                for stream in calls:
                    connection.send(frame(DATA, 0, stream, whole[at : at + 16_000]), within=0.5)

    return flood


def calls(connections: int, streams: int, path: str, sent: bytes, *, flags: int = 0) -> Flood:
    """Calls that are begun, with some bytes of a message."""

    def flood(open_one: Callable[[], Http2]) -> None:
        for _ in range(connections):
            connection = open_one()
            for _ in range(streams):
                stream = connection.open(path)
                connection.send(frame(DATA, flags, stream, sent), within=0.5)

    return flood


def frames(connections: int, sent: bytes, times: int = 1) -> Flood:
    """The same bytes, over and over."""

    def flood(open_one: Callable[[], Http2]) -> None:
        for _ in range(connections):
            connection = open_one()
            for _ in range(times):
                connection.send(sent, within=0.5)

    return flood


def resets(open_one: Callable[[], Http2]) -> None:
    """Calls that are taken back at once."""
    for _ in range(4):
        connection = open_one()
        for _ in range(2000):
            connection.send(frame(RST_STREAM, 0, connection.open(CHECK), b"\0\0\0\x08"), within=0.5)


UNENDING = frame(CONTINUATION, 0, 1, field(b"a", b"b") * 3000)
FLOODS: dict[str, Flood] = {
    "a mebibyte to each of 200 calls": megabytes(1, 200),
    "the same on four connections": megabytes(4, 200),
    "announced and not sent": calls(2, 200, ACQUIRE, message(MEBIBYTE, sent=100)),
    "small and not finished": calls(20, 100, CHECK, message(900, sent=100)),
    "watches": calls(20, 200, WATCH, message(0), flags=END_STREAM),
    "connections": frames(300, b""),
    "large headers": frames(4, b"".join(frame(HEADERS, 4, n, call(CHECK, field(b"x", b"y" * 7000))) for n in range(1, 99, 2))),
    "headers without end": frames(16, frame(HEADERS, 0, 1, call(CHECK)) + UNENDING * 50, 2),
    "pings": frames(4, frame(PING, 0, 0, b"12345678") * 1000, 20),
    "settings": frames(4, frame(SETTINGS, 0, 0, b"\0\3\0\0\0\1") * 1000, 20),
    "resets": resets,
}


@pytest.mark.parametrize("listener", ["health", "tls", "agent"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_grows_the_broker_little_and_starves_nobody(flooded: Flooded, name: str, listener: str) -> None:
    """S2, S3: whatever strangers and an agent send, and however long they hold it.

    What earlier floods took may not have been given back yet: `test_what_a_flood_took_is_given_back` bounds that.
    """
    before = flooded.grown
    with ExitStack() as stack:
        FLOODS[name](lambda: flooded.connect(listener, stack))
        assert flooded.grown - before < MOST
        flooded.serve_all()
        assert flooded.grown - before < MOST


def test_what_a_flood_took_is_given_back(flooded: Flooded) -> None:
    """S2: after all of them the broker is about what it was."""
    flooded.broker.wait_for(lambda: flooded.grown < MOST // 2)


def test_slow_scrapers_cost_no_thread(flooded: Flooded) -> None:
    """S18: 500 connections that say nothing, or half a request."""
    host, port = flooded.broker.metrics.split(":")
    threads = flooded.of("Threads")
    with ExitStack() as stack:
        for number in range(500):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n" * (number % 2))
        flooded.serve_all()
        assert flooded.of("Threads") <= threads + 8
        assert flooded.grown < MOST


def test_the_metrics_answer_to_no_foreign_name(flooded: Flooded) -> None:
    """S22: DNS rebinding ends at the `Host` header."""
    host, port = flooded.broker.metrics.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"equabot_" not in answer


def test_a_stranger_is_refused_before_its_message(flooded: Flooded) -> None:
    """S2: over TLS the caller is known from a call's headers: the refusal comes while the message does not."""
    with ExitStack() as stack:
        stranger = flooded.connect("tls", stack)
        assert isinstance(stranger.socket, ssl.SSLSocket)
        stranger.open(ACQUIRE)
        refusal = next(payload for kind, _, _, payload in stranger.answers() if kind == HEADERS)
    assert b"grpc-status\x0216" in refusal
