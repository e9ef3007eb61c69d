"""The broker's metrics, as the dashboard reads them."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest

from equabot_broker.dashboard.metrics_reading import Labels, MetricsAbsent, parse, scrape
from equabot_broker.dashboard.traffic import TrafficHistory, quantile
from equabot_broker.telemetry.metrics import Metrics, Snapshot
from tests.fakes.engine import Engine
from tests.ports import free_port


async def test_the_listener_is_read() -> None:
    metrics = Metrics(version="7")
    server = metrics.serve("127.0.0.1", 0, snapshot=Snapshot, health=Engine().readiness)
    try:
        samples = await scrape("127.0.0.1", server.port)
    finally:
        server.close()
    assert samples["equabot_build_info"] == {(("version", "7"),): 1.0}
    assert samples["equabot_leases_granted_total"] == {(): 0.0}
    assert "process_open_fds" not in samples


async def test_an_absent_listener_is_named() -> None:
    port = free_port()
    with pytest.raises(MetricsAbsent, match=f"No metrics listener answers at 127.0.0.1:{port}"):
        await scrape("127.0.0.1", port)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\n\r\n", b"SSH-2.0\r\n", b"\xff" * 100])
async def test_another_server_on_the_port_is_named(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MetricsAbsent, match="is not the broker's metrics listener"):
            await scrape("127.0.0.1", port)


@given(st.lists(st.tuples(st.text(), st.text(), st.floats(min_value=0, max_value=1e9)), max_size=5))
def test_what_the_library_writes_is_read(written: list[tuple[str, str, float]]) -> None:
    registry = CollectorRegistry()
    counter = Counter("equabot_things", "Things.", ("provider", "outcome"), registry=registry)
    expected: dict[tuple[tuple[str, str], ...], float] = {}
    for provider, outcome, value in written:
        counter.labels(provider, outcome).inc(value)
        key = (("provider", provider), ("outcome", outcome))
        expected[key] = expected.get(key, 0.0) + value
    found = parse(generate_latest(registry).decode()).get("equabot_things_total", {})
    assert {key: pytest.approx(value) for key, value in expected.items()} == {
        tuple(sorted(labels, reverse=True)): value for labels, value in found.items()
    }


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for samples in parse(f"equabot_x{text}\nequabot_y{{{text}}} 1\nequabot_z {text}").values():
        assert all(map(math.isfinite, samples.values()))


def test_the_page_gets_what_came_between_readings() -> None:
    """Also where a broker has restarted in between: its counters begin again."""
    history = TrafficHistory()
    for at, count in ((0.0, 5.0), (5.0, 8.0), (10.0, 2.0)):
        ok, limited = (("provider", "a"), ("status", "200")), (("provider", "a"), ("status", "429"))
        requests: dict[Labels, float] = {ok: count, limited: 1.0}
        history.add(at, {"equabot_gateway_requests_total": requests, "equabot_leases_granted_total": {(): count}})
    shown = history.view()
    assert shown["times"] == [5.0, 10.0]
    assert shown["requests"] == {"ok": [3.0, 2.0], "limited": [0.0, 1.0], "client": [0.0, 0.0], "server": [0.0, 0.0]}
    assert shown["granted"] == [3.0, 2.0]
    assert shown["latency"]["p50"] == [None, None]


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([], 0.5, None),
        ([(1.0, 0.0), (math.inf, 0.0)], 0.5, None),
        ([(1.0, 10.0), (math.inf, 10.0)], 0.5, 0.5),
        ([(1.0, 0.0), (2.0, 10.0), (math.inf, 10.0)], 0.5, 1.5),
        ([(1.0, 1.0), (math.inf, 10.0)], 0.95, 1.0),
    ],
)
def test_quantiles_are_those_of_prometheus(buckets: list[tuple[float, float]], share: float, expected: float | None) -> None:
    assert quantile(buckets, share) == expected
