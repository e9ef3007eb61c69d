"""`equabot health` against a broker process."""

import json

import pytest

from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker


@pytest.mark.parametrize("service", ["", "readiness", "liveness", "provider/anthropic", "profile/anthropic:dotenv"])
def test_what_serves_is_0(shared_broker: RunningBroker, service: str) -> None:
    """Over the health port, which a kubelet asks too."""
    done = shared_broker.run("health", *([service] if service else []))
    assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")


def test_a_provider_without_a_usable_profile_is_1(shared_broker: RunningBroker) -> None:
    """It is known, and does not serve."""
    done = shared_broker.run("health", "provider/openai")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "equabot: provider/openai: NOT_SERVING\n")


def test_an_unknown_name_is_1_and_said_to_be_one(shared_broker: RunningBroker) -> None:
    """A misspelt probe must not look like an unhealthy broker."""
    done = shared_broker.run("health", "provider/nobody")
    assert (done.returncode, done.stderr) == (1, "equabot: provider/nobody: NOT_FOUND: no such service\n")


def test_an_address_may_be_given(shared_broker: RunningBroker) -> None:
    """Where the configuration is not at hand."""
    done = shared_broker.run("health", "--address", shared_broker.health, EQUABOT_LISTEN_HEALTH="127.0.0.1:1")
    assert done.returncode == 0


def test_a_broker_that_listens_everywhere_is_asked_here(make_broker: MakeBroker) -> None:
    """As in the image, where the variable says 0.0.0.0."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n")
    port = broker.health.rpartition(":")[2]
    broker.environ["EQUABOT_LISTEN_HEALTH"] = f"0.0.0.0:{port}"
    assert broker.start().run("health").returncode == 0


def test_a_required_provider_that_loses_its_key_is_not_ready(make_broker: MakeBroker) -> None:
    """And is again when the key comes back."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config="required: [anthropic]\n").start()
    broker.write_dotenv("")
    broker.wait_healthy("readiness", serving=False)
    assert broker.run("health").returncode == 1
    assert broker.run("health", "liveness").returncode == 0
    broker.write_dotenv(f"ANTHROPIC_API_KEY={KEY}\n")
    broker.wait_healthy("readiness")
    assert broker.run("health").returncode == 0


@pytest.mark.parametrize(
    ("service", "status", "code"),
    [("", "SERVING", 0), ("provider/openai", "NOT_SERVING", 1), ("provider/antropic", "NOT_FOUND", 1)],
)
def test_health_as_json(shared_broker: RunningBroker, service: str, status: str, code: int) -> None:
    """F13: the same answers and exit codes; what may be meant is named."""
    done = shared_broker.run("health", *([service] if service else []), "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["service"], found["status"]) == (code, service, status)
    assert found["did_you_mean"] == (["provider/anthropic"] if status == "NOT_FOUND" else [])
    assert found["findings"] == []
