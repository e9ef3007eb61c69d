"""S8, S10: what a stranger can make Envoy hold is bounded, and others are served."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil
import pytest

from tests.fakes.upstream import Answer, Upstream
from tests.gateway.conftest import MakeGateway
from tests.gateway.running import MESSAGES, Gateway

MIB = 1 << 20
LIMIT = 256 * MIB
"""Of the gateway's container in the chart, and what Envoy is configured for by default."""
PATIENCE = 120.0


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """As many sockets as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def envoy_of(gateway: Gateway) -> psutil.Process:
    """The broker's child."""
    [child] = [one for one in psutil.Process().children(recursive=True) if f"{gateway.envoy_config}" in one.cmdline()]
    return child


@contextmanager
def opened(gateway: Gateway, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each with these bytes and no room for an answer; closed at the end."""
    with ExitStack() as closing:
        sockets = []
        for _ in range(count):
            connection = closing.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE)
            connection.connect(("127.0.0.1", gateway.port))
            connection.sendall(sent)
            sockets.append(connection)
        yield sockets


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes it, within the test's patience."""
    with suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def test_connections_without_a_byte(make_gateway: MakeGateway) -> None:
    """S10: 4,096 of them, and no token: others are served at once, and soon the silent ones are closed."""
    count = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 3)
    gateway = make_gateway().start()
    token = gateway.lease().secret.reveal()
    envoy = envoy_of(gateway)
    with opened(gateway, count) as silent:
        assert [gateway.ask(token).status for _ in range(20)] == [200] * 20
        assert envoy.memory_info().rss < LIMIT
        assert all(map(ended, silent))


def test_connections_that_begin_a_request_and_no_more(make_gateway: MakeGateway) -> None:
    """S10: a line of it each. They are told so and closed, and others are served."""
    gateway = make_gateway().start()
    token = gateway.lease().secret.reveal()
    with opened(gateway, 1024, b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\n") as slow:
        assert gateway.ask(token).status == 200
        assert {connection.recv(12) for connection in slow} == {b"HTTP/1.1 408"}


def test_more_connections_than_allowed_do_not_last(make_gateway: MakeGateway) -> None:
    """S10: above `gateway.max_connections` one is closed at once; below it again, as soon as the silent ones are gone."""
    gateway = make_gateway(gateway={"max_connections": 64}).start()
    token = gateway.lease().secret.reveal()
    with opened(gateway, 65) as silent:
        assert ended(silent[-1])
        gateway.wait_for(lambda: asked(gateway, token))


def asked(gateway: Gateway, token: str) -> bool:
    with suppress(OSError):
        return gateway.ask(token).status == 200
    return False


def test_answers_that_are_not_read(make_gateway: MakeGateway, vendor: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """S8: 700 of them, each of 2 MiB. Envoy stays below its container's limit, and gives back what it took."""
    agents = {name: {"providers": ["*"], "max_requests": 400} for name in ("one", "two")}
    gateway = make_gateway(agents=agents | {"other": {"providers": ["*"]}}).start()
    one, two, other = (gateway.lease(agent=agent).secret.reveal() for agent in ("one", "two", "other"))
    envoy = envoy_of(gateway)
    body = b"x" * 2 * MIB
    monkeypatch.setattr(vendor, "answer", lambda _: Answer(body=body))
    with opened(gateway, 350, request_with(one)), opened(gateway, 350, request_with(two)):
        most = rest(lambda: envoy.memory_info().rss, lambda: len(vendor.received) >= 700)
        assert most < LIMIT
        monkeypatch.undo()
        assert gateway.ask(other).status == 200
    gateway.wait_for(lambda: envoy.memory_info().rss < most - 16 * MIB)


def test_an_agent_that_reads_no_answer_takes_them_from_no_other(
    make_gateway: MakeGateway, vendor: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S10: what one agent has under way is bounded; when it has ended, as much may be asked for as before."""
    agents = {"hostile": {"providers": ["*"], "max_requests": 20}, "other": {"providers": ["*"]}}
    gateway = make_gateway(agents=agents).start()
    hostile, other = (gateway.lease(agent=agent).secret.reveal() for agent in agents)
    body = b"x" * 8 * MIB
    monkeypatch.setattr(vendor, "answer", lambda _: Answer(body=body))
    with opened(gateway, 20, request_with(hostile)):
        gateway.wait_for(lambda: len(vendor.received) == 20)
        monkeypatch.undo()
        told = gateway.ask(hostile)
        assert (told.status, told.reason, told.headers["retry-after"]) == (429, "RATE_LIMITED", "1")
        assert told.json()["error"]["type"] == "rate_limit_error"
        assert gateway.ask(other).status == 200
    gateway.wait_for(lambda: gateway.ask(hostile).status == 200)


def request_with(token: str) -> bytes:
    """A whole request."""
    head = f"POST {MESSAGES} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {token}\r\ncontent-length: 2\r\n\r\n"
    return f"{head}{{}}".encode()


def rest(measured: Callable[[], int], begun: Callable[[], bool]) -> int:
    """The most bytes that were measured until, with the condition met, they grow no more."""
    deadline = time.monotonic() + PATIENCE
    most, unchanged = measured(), 0
    while unchanged < 20 or not begun():
        assert time.monotonic() < deadline, most
        time.sleep(0.05)
        now = measured()
        most, unchanged = max(most, now), 0 if now > most + MIB else unchanged + 1
    return most
