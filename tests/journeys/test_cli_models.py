"""`equabot models status` beside a broker process and without one."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker


def test_without_a_broker_the_sources_are_read(make_broker: MakeBroker) -> None:
    """The same profiles, and it says that no broker runs."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    done = broker.run("models", "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Broker\tnot running" in done.stdout
    assert f"anthropic:dotenv\tstatic\t\t(dotenv {broker.home}/.env)\tnext" in done.stdout
    assert KEY not in done.stdout


def test_a_broker_and_its_absence_say_the_same(running_broker: RunningBroker) -> None:
    """Programs need not know whether one runs."""
    beside = json.loads(running_broker.run("models", "status", "--json").stdout)
    text = running_broker.run("models", "status").stdout
    assert f"Broker\tunix:{running_broker.socket('admin')}" in text
    assert running_broker.stop() == 0
    assert json.loads(running_broker.run("models", "status", "--json").stdout) == beside
    assert beside["auth"]["providers"][0]["effective"]["kind"] == "env"


def test_an_agents_container_has_only_its_own_socket(running_broker: RunningBroker) -> None:
    """The address in the environment is asked, and no other."""
    done = running_broker.run(
        "models", "status", EQUABOT_BROKER_ADDRESS=str(running_broker.socket("main")), EQUABOT_RUN_DIR="/nowhere"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Broker\tunix:{running_broker.socket('main')}" in done.stdout
    assert "anthropic:dotenv\tstatic" in done.stdout


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(("dotenv", "code"), [(f"ANTHROPIC_API_KEY={KEY}\n", 0), ("", 1), ("ANTHROPIC_API_KEY=changeme\n", 1)])
def test_check_is_for_automation(make_broker: MakeBroker, dotenv: str, code: int, *, running: bool) -> None:
    """1 for missing and for what cannot be used, with a broker and without."""
    broker = make_broker(dotenv=dotenv)
    if running:
        broker.start()
    assert broker.run("models", "status", "--check").returncode == code
    assert broker.run("models", "status", "--check", "--json").returncode == code
    assert broker.run("models", "status").returncode == 0


@pytest.mark.parametrize(("hours", "code", "status"), [(-1, 1, "expired"), (3, 2, "expiring"), (72, 0, "ok")])
def test_check_knows_when_a_credential_ends(make_broker: MakeBroker, hours: int, code: int, status: str) -> None:
    """2 within the warning time of a day, 1 after the end."""
    expires = (datetime.now(UTC) + timedelta(hours=hours, minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = f"profiles: {{anthropic:dotenv: {{expires_at: {expires}}}}}\n"
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=config)
    done = broker.run("models", "status", "--check", "--json")
    profile = json.loads(done.stdout)["auth"]["oauth"]["profiles"][0]
    assert (done.returncode, profile["profileId"], profile["status"]) == (code, "anthropic:dotenv", status)
    assert datetime.fromisoformat(profile["expiresAt"]) == datetime.fromisoformat(expires)


def test_a_fault_in_a_source_is_told(make_broker: MakeBroker) -> None:
    """With its line, and never the line itself."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\nthis is no assignment sk-secret\n")
    text = broker.run("models", "status").stdout
    assert "Sources" in text
    assert "sk-secret" not in text
    broker.start(service="liveness")
    broker.wait_output("models", "status", until=lambda text: "Sources" in text)


def test_an_agent_that_is_not_configured_is_64(make_broker: MakeBroker) -> None:
    """There is nothing to report on."""
    done = make_broker().run("models", "status", "--agent", "nobody")
    assert (done.returncode, done.stderr) == (
        64,
        "equabot: agent 'nobody' is not configured: the configured agents are main\n",
    )
