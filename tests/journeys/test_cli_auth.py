"""`models auth` and `doctor` beside a running broker: what they write is served at once, and what it knows is told."""

import json
import time

import pytest

from equabot_client import Outcome
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker

TOKEN = "sk-ant-oat01-" + "j0urney" * 12
NEWER = "sk-ant-oat01-" + "n3wer00" * 12


def paste(broker: RunningBroker, token: str, name: str = "manual") -> None:
    done = broker.run(
        "models", "auth", "paste-token", "--provider", "anthropic", "--profile-id", f"anthropic:{name}", stdin=token
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_stored_is_served_without_a_restart(make_broker: MakeBroker) -> None:
    """A first token, another in its place, and none any more; an open stream hears of each."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    paste(broker, TOKEN)
    broker.wait_for(lambda: broker.run("key", "anthropic:manual").stdout == f"{TOKEN}\n")
    with broker.connect() as client:
        events = client.stream("anthropic:manual")
        granted = next(events)
        assert granted.lease is not None
        assert granted.lease.secret.reveal() == TOKEN
        paste(broker, NEWER)
        rotated = next(event for event in events if event.kind.name == "ROTATED")
        assert rotated.lease is not None
        assert rotated.lease.secret.reveal() == NEWER
        assert broker.run("models", "auth", "remove", "anthropic:manual").returncode == 0
        assert any(event.kind.name == "REVOKED" for event in events)
    assert broker.run("key", "anthropic:manual").returncode == 1
    assert TOKEN not in broker.log()


def test_an_order_is_followed_at_once_and_excludes(make_broker: MakeBroker) -> None:
    """What it leaves out is not tried; without it the rules rank again."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    paste(broker, TOKEN)
    broker.wait_output("models", "status", "--plain", until=lambda told: "anthropic:manual" in told)

    def order(*arguments: str) -> int:
        return broker.run("models", "auth", "order", arguments[0], "--provider", "anthropic", *arguments[1:]).returncode

    def served() -> str:
        return broker.run("key", "anthropic").stdout.strip()

    assert served() == KEY
    assert order("set", "anthropic:manual") == 0
    broker.wait_for(lambda: served() == TOKEN)
    assert order("set", "anthropic:gone") == 1
    assert order("clear") == 0
    broker.wait_for(lambda: served() == KEY)


def test_doctor_tells_what_the_broker_knows(make_broker: MakeBroker) -> None:
    """Who refused a credential, of the broker's own environment as well; and that it runs."""
    broker = make_broker(credentials={"ANTHROPIC_API_KEY": KEY}).start()
    done = broker.run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no broker answers" not in done.stdout
    with broker.connect() as client:
        client.report(client.acquire("anthropic"), Outcome.AUTH)
    done = broker.run("doctor")
    assert done.returncode == 1
    assert "error\tanthropic:env\trejected" in done.stdout
    assert "replace its value in the environment" in done.stdout
    assert KEY not in done.stdout


def test_doctor_tells_of_a_source_that_only_the_broker_finds_broken(make_broker: MakeBroker) -> None:
    """It holds on to the last good values, which end after a while."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n").start()
    broker.write_dotenv("no assignment\n")
    broker.wait_output("doctor", until=lambda told: "line 1 is skipped" in told)
    assert broker.run("doctor").returncode == 1


def test_doctor_leaves_refreshing_to_the_broker(make_broker: MakeBroker) -> None:
    """It does that by itself: nothing is due as far as the operator is concerned."""
    ends = int((time.time() + 120) * 1000)
    entry = {"type": "oauth", "provider": "qwen-portal", "access": "a" * 30, "refresh": "r" * 30, "expires": ends}
    broker = make_broker(config="providers: {qwen-portal: {token_url: 'http://127.0.0.1:1/token'}}\n")
    path = broker.home / "agents/main/agent/auth-profiles.json"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(json.dumps({"version": 1, "profiles": {"qwen-portal:me": entry}}))
    path.chmod(0o600)
    assert "it is due for a refresh" in broker.run("doctor").stdout
    broker.start(service="liveness")
    done = broker.run("doctor", "--fix")
    assert "it is due for a refresh" not in done.stdout
    assert "fixed: qwen-portal" not in done.stdout


@pytest.mark.parametrize("running", [True, False])
def test_the_configured_order_that_leaves_a_token_out_is_told(make_broker: MakeBroker, *, running: bool) -> None:
    """It would lie there unused."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config="auth: {order: {anthropic: ['anthropic:dotenv']}}\n")
    if running:
        broker.start()
    done = broker.run("models", "auth", "paste-token", "--provider", "anthropic", stdin=TOKEN)
    assert done.returncode == 0
    assert "does not have anthropic:manual, so it is not used" in done.stderr
