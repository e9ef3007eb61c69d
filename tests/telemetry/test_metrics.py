"""Metrics: what was heard is counted, what is true now is shown, and a broker that does not turn fails its scrape."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from equabot_broker.domain.errors import CannotStart
from equabot_broker.telemetry.broker_events import CallerRefused, StoreRecovered
from equabot_broker.telemetry.credential_events import LoginInvalidated, ProfilesChanged, RefreshAttemptFailed, RefreshSucceeded
from equabot_broker.telemetry.events import Event
from equabot_broker.telemetry.gateway_events import GatewayAuthorized, GatewayLogSkipped, GatewayRefused, GatewayUsed
from equabot_broker.telemetry.lease_events import AcquireAnswered, LeaseDenied, LeaseGranted, OutcomeReported
from equabot_broker.telemetry.metrics import CredentialGauge, Metrics, Snapshot, SourceGauge
from tests.fakes.engine import Engine

SNAPSHOT = Snapshot(
    credentials=(
        CredentialGauge(profile="anthropic:env", provider="anthropic", state="expiring", expires_at=1_800_000_000.5),
        CredentialGauge(profile="openai:env", provider="openai", state="ok"),
        CredentialGauge(profile="openai:env", provider="openai", state="missing", agent="coder"),
    ),
    sources=(
        SourceGauge(source="env", sync_age=12.5, stale=False),
        SourceGauge(source='mounted /run/"odd"\npath', sync_age=None, stale=True),
    ),
    leases={("main", "anthropic"): 3},
    streams={"main": 2},
    suspended={"main": False, "coder": True},
    store_fault=True,
    audit_fault=True,
    audit_lost=3,
    audit_sequence=12,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@asynccontextmanager
async def scraped(metrics: Metrics, snapshot: Snapshot = SNAPSHOT) -> AsyncIterator[str]:
    server = metrics.serve("127.0.0.1", 0, snapshot=lambda: snapshot, health=Engine().readiness)
    try:
        yield f"http://127.0.0.1:{server.port}/metrics"
    finally:
        server.close()


def fetch(url: str) -> str:
    with urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


async def samples(metrics: Metrics, snapshot: Snapshot = SNAPSHOT) -> Samples:
    async with scraped(metrics, snapshot) as url:
        text = await asyncio.to_thread(fetch, url)
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    by_name = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(by_name) == len(found), "Prometheus refuses a scrape with one series twice"
    return by_name


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"equabot_{name}", frozenset(labels.items())


async def test_gauges_show_the_broker_at_the_time_of_the_scrape() -> None:
    """One series a profile, source, agent; only a profile of one agent says whose it is; odd names are escaped."""
    found = await samples(Metrics(version="1.2.3"))
    gauges = {name: value for name, value in found.items() if name[0].startswith("equabot_") and "_bucket" not in name[0]}
    odd = 'mounted /run/"odd"\npath'
    assert (
        gauges.items()
        >= {
            key("credential_expiry_timestamp_seconds", profile="anthropic:env", provider="anthropic"): 1_800_000_000.5,
            key("credential_state", profile="anthropic:env", provider="anthropic", state="expiring"): 1.0,
            key("credential_state", profile="openai:env", provider="openai", state="ok"): 1.0,
            key("credential_state", profile="openai:env", provider="openai", state="missing", agent="coder"): 1.0,
            key("leases_active", agent="main", provider="anthropic"): 3.0,
            key("streams_active", agent="main"): 2.0,
            key("agent_suspended", agent="main"): 0.0,
            key("agent_suspended", agent="coder"): 1.0,
            key("source_sync_age_seconds", source="env"): 12.5,
            key("source_stale", source="env"): 0.0,
            key("source_stale", source=odd): 1.0,
            key("state_store_fault"): 1.0,
            key("audit_fault"): 1.0,
            key("audit_sequence"): 12.0,
            key("audit_lost_total"): 3.0,
            key("build_info", version="1.2.3"): 1.0,
        }.items()
    )
    assert key("source_sync_age_seconds", source=odd) not in gauges


async def test_counters_count_what_was_heard() -> None:
    """Each event moves its own counter, and events that count for nothing move none."""
    metrics = Metrics(version="1")
    granted = LeaseGranted(agent="main", provider="anthropic", profile="anthropic:env", delivery="raw", seconds=900.0)
    outcome = OutcomeReported(agent="main", provider="openai", profile="openai:env", outcome="rate_limit")
    denied = [
        LeaseDenied(agent="main", provider="x", reason=reason) for reason in ("LEASE_LIMIT", "LEASE_LIMIT", "POLICY_DENIED")
    ]
    login = {"profile": "acme:me", "provider": "acme"}
    refreshes = [
        *(RefreshSucceeded(**login, adopted=adopted, seconds=0.1) for adopted in (False, True, False)),
        *(RefreshAttemptFailed(**login, outcome=blame, reason="503", retry_in=1.0) for blame in ("transient", "uncertain")),
        LoginInvalidated(**login, reason="invalid_grant", command="log in"),
    ]
    request = {"agent": "main", "provider": "anthropic", "lease": "l", "method": "POST", "route": "/v1/messages"}
    passed = {**request, "session": "", "profile": "anthropic:env"}
    gateway: list[Event] = [
        *(GatewayAuthorized(**passed, request=f"00c0ffee0000000{number}") for number in range(3)),
        *(
            GatewayUsed(**passed, request=name, status=429, sent=1, received=2, seconds=0.1)
            for name in ("00c0ffee00000001", "of another process")
        ),
        GatewayRefused(**request, status=401, reason="LEASE_NOT_FOUND"),
        GatewayLogSkipped(),
    ]
    strangers = [
        CallerRefused(reason="UNAUTHENTICATED", words=""),
        CallerRefused(reason="UNAUTHENTICATED", words=""),
        CallerRefused(reason="UNAVAILABLE", words=""),
    ]
    for event in (granted, granted, outcome, *denied, *strangers, *refreshes, *gateway, StoreRecovered()):
        metrics.record(event)
    found = await samples(metrics, Snapshot())
    ours = (item for item in found.items() if item[0][0].endswith("_total") and "equabot" in item[0][0])
    assert {name: value for name, value in ours if "incidents" not in name[0]} == {
        key("leases_granted_total"): 2.0,
        key("leases_denied_total", reason="LEASE_LIMIT"): 2.0,
        key("leases_denied_total", reason="POLICY_DENIED"): 1.0,
        key("callers_refused_total", reason="UNAUTHENTICATED"): 2.0,
        key("callers_refused_total", reason="UNAVAILABLE"): 1.0,
        key("outcomes_total", provider="openai", outcome="rate_limit"): 1.0,
        key("audit_lost_total"): 0.0,
        key("gateway_authorized_total", provider="anthropic"): 3.0,
        key("gateway_requests_total", provider="anthropic", status="429"): 2.0,
        key("gateway_refusals_total", provider="anthropic", reason="LEASE_NOT_FOUND"): 1.0,
        key("gateway_log_skipped_total"): 1.0,
        key("refreshes_total", provider="acme", outcome="refreshed"): 2.0,
        **{
            key("refreshes_total", provider="acme", outcome=outcome): 1.0
            for outcome in ("adopted", "transient", "uncertain", "reauth_required")
        },
    }
    assert [found[key("gateway_request_seconds_bucket", le=le)] for le in ("0.05", "0.1")] == [0.0, 2.0]
    assert found[key("gateway_requests_open", provider="anthropic")] == 2.0, "of this process, without those that ended"


async def test_histograms_count_up_to_each_bound() -> None:
    """Buckets are cumulative, a bound belongs to its bucket, and buckets begin at 50 µs for acquires."""
    metrics = Metrics(version="1")
    for seconds in (0.00004, 0.00005, 0.0003, 45.0):
        metrics.record(AcquireAnswered(seconds=seconds))
    metrics.record(ProfilesChanged(profiles=("a:b",), source="env", seconds=0.003))
    found = await samples(metrics)
    assert found[key("acquire_seconds_bucket", le="5e-05")] == 2
    assert found[key("acquire_seconds_bucket", le="0.0001")] == 2
    assert found[key("acquire_seconds_bucket", le="0.0005")] == 3
    assert found[key("acquire_seconds_bucket", le="30.0")] == 3
    assert found[key("acquire_seconds_bucket", le="+Inf")] == found[key("acquire_seconds_count")] == 4
    assert found[key("acquire_seconds_sum")] == pytest.approx(45.00039)
    assert (found[key("rotation_seconds_bucket", le="0.0025")], found[key("rotation_seconds_bucket", le="0.005")]) == (0, 1)


async def test_the_snapshot_is_taken_on_the_event_loop() -> None:
    """The engine is not thread-safe and need not be; nor does a scrape see it half changed."""
    threads: list[threading.Thread] = []

    def snapshot() -> Snapshot:
        threads.append(threading.current_thread())
        return Snapshot()

    server = Metrics(version="1").serve("127.0.0.1", 0, snapshot=snapshot, health=Engine().readiness)
    url = f"http://127.0.0.1:{server.port}/metrics"
    await asyncio.gather(*(asyncio.to_thread(fetch, url) for _ in range(4)))
    server.close()
    assert threads == [threading.main_thread()] * 4


async def test_a_loop_that_stands_still_fails_the_scrape(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Within two seconds, as a 500, said in the log, with no traceback on the terminal; later scrapes work again."""
    async with scraped(Metrics(version="1")) as url:
        scraper = threading.Thread(target=lambda: errors.append(status(url)))
        errors: list[int] = []
        scraper.start()
        scraper.join(60)  # on the event loop's thread, so that it cannot answer
        assert not scraper.is_alive()
        assert errors == [500]
        assert "event loop did not answer within 2 s" in caplog.text
        assert "equabot_build_info" in await asyncio.to_thread(fetch, url)
    assert capfd.readouterr().err == ""


def status(url: str) -> int:
    try:
        with urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


async def test_a_failing_snapshot_fails_the_scrape_and_tells_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """An error's text goes neither to the scraper nor to the terminal."""

    def snapshot() -> Snapshot:
        raise RuntimeError("sk-canary-in-an-error")

    server = Metrics(version="1").serve("127.0.0.1", 0, snapshot=snapshot, health=Engine().readiness)
    body = await asyncio.to_thread(_body_of_error, f"http://127.0.0.1:{server.port}/metrics")
    server.close()
    assert "canary" not in body
    assert "canary" not in "".join(capfd.readouterr())


def _body_of_error(url: str) -> str:
    with pytest.raises(HTTPError) as raised:
        urlopen(url, timeout=60)
    with raised.value as error:
        return f"{error.code} {error.read().decode()}"


async def test_a_scraper_that_hangs_up_disturbs_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """No traceback for a reset connection, and the next scrape is answered."""
    async with scraped(Metrics(version="1")) as url:
        port = int(url.split(":")[2].split("/")[0])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                rude.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "equabot_build_info" in await asyncio.to_thread(fetch, url)
    assert capfd.readouterr().err == ""


async def test_an_address_in_use_is_said_with_the_remedy() -> None:
    """The broker does not start half: whoever starts it learns which setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"metrics on 127.0.0.1:{port}: Address already in use. Set listen.metrics"):
            Metrics(version="1").serve("127.0.0.1", port, snapshot=Snapshot, health=Engine().readiness)
    with pytest.raises(CannotStart, match=r"listen.metrics"):
        Metrics(version="1").serve("127.0.0.1", 99999, snapshot=Snapshot, health=Engine().readiness)


async def test_after_close_nobody_listens() -> None:
    """The port is free again at once."""
    metrics = Metrics(version="1")
    first = metrics.serve("127.0.0.1", 0, snapshot=Snapshot, health=Engine().readiness)
    first.close()
    first.close()
    second = metrics.serve("127.0.0.1", first.port, snapshot=Snapshot, health=Engine().readiness)
    assert second.port == first.port
    second.close()


def test_who_does_not_serve_metrics_does_not_pay_for_them() -> None:
    """`prometheus_client` and the HTTP server are imported with `serve` and not before."""
    code = """
import sys
from equabot_broker.telemetry.metrics import Metrics
Metrics(version="1")
print([name for name in ("prometheus_client", "http.server") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
