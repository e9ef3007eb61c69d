"""The pages for callers that have HTTP and not gRPC."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from equabot_broker.telemetry.metrics import CredentialGauge, Metrics, Snapshot, SourceGauge
from tests.fakes.engine import ANYTHING, Engine, profile

SNAPSHOT = Snapshot(
    credentials=(
        CredentialGauge(profile="anthropic:env", provider="anthropic", state="ok", expires_at=1_800_000_000.25),
        CredentialGauge(profile="openai:env", provider="openai", state="missing", agent="coder"),
    ),
    sources=(SourceGauge(source="env", sync_age=1.0, stale=False), SourceGauge(source="dotenv", sync_age=None, stale=True)),
)


@pytest.fixture
def engine() -> Engine:
    return Engine(required=("anthropic", "groq"), agents={"main": ANYTHING})


@pytest.fixture
async def url(engine: Engine) -> AsyncIterator[str]:
    server = Metrics(version="1.2").serve("127.0.0.1", 0, snapshot=lambda: SNAPSHOT, health=engine.readiness)
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def answer_of(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=60) as answer:
            return int(answer.status), answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def fetch(url: str) -> tuple[int, str]:
    return await asyncio.to_thread(answer_of, url)


async def test_readyz_names_the_required_providers_without_a_lease(engine: Engine, url: str) -> None:
    """It agrees with the health service `readiness`."""
    engine.put(profile("anthropic:a"))
    assert await fetch(f"{url}/readyz") == (503, "not ready\nno lease of provider groq can be granted\n")
    engine.put(profile("anthropic:a"), profile("groq:a"))
    assert await fetch(f"{url}/readyz") == (200, "ready\n")
    engine.readiness.drain()
    assert await fetch(f"{url}/readyz") == (503, "not ready\n")
    assert await fetch(f"{url}/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("service=readiness", 503),
        ("service=liveness", 200),
        ("service=provider/anthropic", 200),
        ("service=provider%2Fclaude", 200),
        ("service=provider/groq", 503),
        ("service=profile/anthropic:a", 200),
        ("service=profile/anthropic:b", 404),
        ("service=nothing", 404),
        ("other=1", 503),
        ("service=%ff%00", 404),
        ("&&&=;", 503),
    ],
)
async def test_readyz_answers_for_any_health_service(engine: Engine, url: str, query: str, status: int) -> None:
    """An unknown name is 404 and is not repeated."""
    engine.put(profile("anthropic:a"))
    answered, text = await fetch(f"{url}/readyz?{query}")
    assert answered == status
    assert query.partition("=")[2] not in text or status != 404


async def test_status_has_names_and_states(engine: Engine, url: str) -> None:
    """An instant is written as RFC 3339 says."""
    engine.put(profile("anthropic:a"))
    status, text = await fetch(f"{url}/status.json")
    assert status == 200
    assert json.loads(text) == {
        "version": "1.2",
        "ready": False,
        "unmet": ["groq"],
        "providers": [
            {"provider": "anthropic", "serving": True},
            {"provider": "groq", "serving": False},
            {"provider": "openai", "serving": False},
        ],
        "profiles": [
            {
                "profile": "anthropic:env", "provider": "anthropic", "agent": "", "state": "ok",
                "expiresAt": "2027-01-15T08:00:00.250Z",
            },
            {"profile": "openai:env", "provider": "openai", "agent": "coder", "state": "missing", "expiresAt": None},
        ],
        "sources": [{"source": "env", "stale": False}, {"source": "dotenv", "stale": True}],
    }  # fmt: skip


async def test_a_loop_that_does_not_turn_is_unavailable(url: str) -> None:
    """Within two seconds, on every page."""
    answers: list[tuple[int, str]] = []
    paths = ("healthz", "readyz", "status.json")
    probes = [threading.Thread(target=lambda path=path: answers.append(answer_of(f"{url}/{path}"))) for path in paths]
    for probe in probes:
        probe.start()
    for probe in probes:
        probe.join(60)  # on the event loop's thread, so that it cannot answer
    assert answers == [(503, "the event loop of the broker does not answer\n")] * 3
    assert await fetch(f"{url}/healthz") == (200, "ok\n")
