"""One question, one answer, from a broker process, its health and the commands."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from equabot_client import errors, health
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, RunningBroker

REQUIRED = "required: [anthropic]\n"


def make_directory(home: Path) -> None:
    """Docker makes a directory where a file is to be mounted that is not there."""
    (home / ".claude" / ".credentials.json").mkdir(parents=True)


def make_empty(home: Path) -> None:
    (home / ".codex").mkdir()
    (home / ".codex" / "auth.json").touch()


def make_pipe(home: Path) -> None:
    os.mkfifo(home / ".env")


SPOILED: list[Callable[[Path], None]] = [make_directory, make_empty, make_pipe]


def sources(home: Path) -> str:
    listed = (
        f"[env, {{claude_cli: {{path: {home}/.claude/.credentials.json}}}}, {{codex_cli: {{path: {home}/.codex/auth.json}}}}"
    )
    return f"sources: {listed}, {{dotenv: {{path: {home}/.env}}}}]\n"


@pytest.mark.parametrize("spoil", SPOILED)
@pytest.mark.parametrize("before", [True, False])
def test_a_source_that_nobody_needs_keeps_no_pod_unready(
    make_broker: MakeBroker, tmp_path: Path, spoil: Callable[[Path], None], *, before: bool
) -> None:
    """P8: the same answer at the start and while running; health and doctor name the source."""
    broker = make_broker(credentials={"ANTHROPIC_API_KEY": KEY}, config=REQUIRED + sources(tmp_path))
    if before:
        spoil(tmp_path)
    broker.start()
    if not before:
        spoil(tmp_path)
    said = str(tmp_path)
    broker.wait_for(lambda: said in broker.run("health").stderr)
    done = broker.run("health")
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    assert said in broker.run("doctor").stdout
    assert "equabot_source_stale" in broker.scrape()


@pytest.mark.parametrize(
    "config",
    ["auth: {order: {anthropic: [anthropic:gone]}}\n", "agents: {main: {providers: ['*'], profiles: [anthropic:gone]}}\n"],
)
def test_it_is_not_ready_while_every_agent_is_refused(make_broker: MakeBroker, config: str) -> None:
    """P9: health, `--check`, doctor and acquiring agree."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", config=REQUIRED + config)
    broker.start(service="liveness")
    for service in ("readiness", "provider/anthropic"):
        assert health.check(service, address=broker.health, timeout=60) is False
    with broker.connect() as connected, pytest.raises(errors.EquabotError):
        connected.acquire("anthropic")
    assert broker.run("models", "status", "--check").returncode == 1
    assert broker.run("doctor").returncode == 1
    assert "anthropic" in broker.run("health").stderr


@pytest.mark.parametrize("value", ["", "changeme"])
@pytest.mark.parametrize("running", [True, False])
def test_a_variable_that_holds_no_key_is_no_alarm_next_to_one_that_serves(
    make_broker: MakeBroker, value: str, *, running: bool
) -> None:
    """P17: `--check` and doctor exit with 0, and say it as a note."""
    broker = make_broker(dotenv=f"ANTHROPIC_API_KEY={KEY}\n", credentials={"ANTHROPIC_API_KEY": value})
    if running:
        broker.start()
    assert broker.run("models", "status", "--check", ANTHROPIC_API_KEY=value).returncode == 0
    done = broker.run("doctor", ANTHROPIC_API_KEY=value)
    assert done.returncode == 0
    assert "ANTHROPIC_API_KEY" in done.stdout


def logged_in(path: Path, *, ends: timedelta) -> str:
    """A Claude login of which the access token ends then; returns the configuration that reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    expires = round((datetime.now(UTC) + ends).timestamp() * 1000)
    login = {"accessToken": "sk-ant-oat01-" + "x" * 80, "refreshToken": "sk-ant-ort01-" + "y" * 80, "expiresAt": expires}
    path.write_text(json.dumps({"claudeAiOauth": login}))
    path.chmod(0o600)
    return f"sources: [{{claude_cli: {{path: {path}}}}}]\n"


def check(broker: RunningBroker) -> tuple[int, str]:
    done = broker.run("models", "status", "--check", "--json")
    (profile,) = json.loads(done.stdout)["auth"]["oauth"]["profiles"]
    return done.returncode, profile["status"]


@pytest.mark.parametrize("running", [True, False])
def test_a_login_that_its_own_tool_renews_is_ok_until_its_end(
    make_broker: MakeBroker, tmp_path: Path, *, running: bool
) -> None:
    """F6, P12: 0 for its whole life; past its end 1, with the remedy."""
    path = tmp_path / ".claude" / ".credentials.json"
    broker = make_broker(config=logged_in(path, ends=timedelta(hours=7)))
    if running:
        broker.start()
    assert check(broker) == (0, "ok")
    assert "setup-token" not in broker.run("doctor").stdout
    logged_in(path, ends=timedelta(hours=-1))
    broker.wait_for(lambda: check(broker) == (1, "expired"))
    assert "open Claude Code once" in broker.run("doctor").stdout


def test_nothing_at_all_serves_and_says_so(make_broker: MakeBroker) -> None:
    """F9: without a requirement the broker is ready; the words say that there is no credential."""
    broker = make_broker(config="sources: [env]\n").start()
    done = broker.run("health")
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    assert "credentials: no credential was found" in done.stderr
    broker.wait_for(lambda: "no credential was found, so every request" in broker.log())
    assert "there is no credential" in broker.run("doctor").stdout
    assert ".env" not in broker.run("doctor").stdout, "F13: no remedy names a place that is not read"


def test_an_expired_login_is_said_once_and_by_health_too(make_broker: MakeBroker, tmp_path: Path) -> None:
    """F13: doctor does not say a remedy twice in one row; health says why a provider does not serve."""
    path = tmp_path / ".claude" / ".credentials.json"
    broker = make_broker(config=logged_in(path, ends=timedelta(hours=-1))).start()
    broker.wait_for(lambda: "open Claude Code once" in broker.run("doctor").stdout)
    assert broker.run("doctor").stdout.count("open Claude Code once") == 1
    done = broker.run("health", "provider/anthropic")
    assert done.returncode == 1
    assert "anthropic:claude-cli: expired" in done.stderr


def test_a_credential_that_is_kept_back_asks_for_no_other(make_broker: MakeBroker) -> None:
    """F13: where an order or a suspension keeps a key back, doctor advises to change that, and not to add a key."""
    order = "auth: {order: {anthropic: ['anthropic:gone']}}\n"
    broker = make_broker(credentials={"ANTHROPIC_API_KEY": KEY}, config=f"sources: [env]\n{order}").start()
    broker.wait_for(lambda: "can be granted" in broker.run("doctor").stdout)
    said = broker.run("doctor").stdout
    assert "equabot models auth order clear --provider anthropic" in said
    assert "set ANTHROPIC_API_KEY" not in said
    assert broker.run("agent", "suspend", "main").returncode == 0
    said = broker.run("doctor").stdout
    assert "equabot agent resume main" in said
    assert "set ANTHROPIC_API_KEY" not in said
    assert "agent main: suspended" in broker.run("health", "provider/anthropic").stderr
