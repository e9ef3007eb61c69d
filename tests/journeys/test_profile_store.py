"""A real broker on profile stores and logins of other tools, while other programs write them."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equabot_client import Outcome
from equabot_client.errors import NoUsableProfile
from tests.fakes.token_endpoint import TokenEndpoint
from tests.journeys.conftest import MakeBroker
from tests.journeys.running import KEY, OTHER_KEY, RunningBroker

LATER = 4_102_444_800_000
TOKEN = "sk-ant-oat01-" + "t0ken" * 20
NEWER = "sk-ant-oat01-" + "newer" * 20


def path_of(broker: RunningBroker, agent: str = "main") -> Path:
    return broker.home / "agents" / agent / "agent" / "auth-profiles.json"


def key(secret: str) -> dict[str, Any]:
    return {"type": "api_key", "provider": "anthropic", "key": secret}


def write(broker: RunningBroker, agent: str = "main", **rest: Any) -> Path:
    """OpenClaw writes the file in place."""
    path = path_of(broker, agent)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps({"version": 1, **rest}, indent=2))
    path.chmod(0o600)
    return path


def write_login(broker: RunningBroker, token: str, expires: int = LATER, folder: str = ".claude") -> None:
    path = broker.home / folder / ".credentials.json"
    path.parent.mkdir(exist_ok=True)
    login = {"accessToken": token, "refreshToken": "sk-ant-ort01-never", "expiresAt": expires}
    path.with_name("new").write_text(json.dumps({"claudeAiOauth": login}))
    path.with_name("new").rename(path)


def stats(broker: RunningBroker, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path_of(broker).read_text()).get("usageStats", {}).get(name, {})
    return found


def served(broker: RunningBroker, profile: str = "anthropic", *, agent: str = "main") -> str:
    with broker.connect(agent) as client:
        return client.acquire(profile).secret.reveal()


def refusal(broker: RunningBroker) -> str:
    """Why nothing is served; empty where something is."""
    try:
        served(broker)
    except NoUsableProfile as refused:
        return str(refused)
    return ""


def soon(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_another_program_writes_is_served(make_broker: MakeBroker) -> None:
    """From the moment on at which it has written it; a broken file changes nothing, and is not touched."""
    broker = make_broker()
    path = write(broker, profiles={"anthropic:default": key(KEY)})
    broker.start()
    assert served(broker) == KEY
    with broker.connect() as client:
        events = client.stream("anthropic")
        next(events)
        write(broker, profiles={"anthropic:default": key(OTHER_KEY)})
        lease = next(event.lease for event in events if event.lease is not None)
        assert lease.secret.reveal() == OTHER_KEY
    half = path.read_text()[:-30]
    path.write_text(half)
    broker.wait_for(lambda: "breaks off in the middle (at byte " in broker.log())
    assert served(broker) == OTHER_KEY
    assert path.read_text() == half
    path.unlink()
    broker.wait_healthy("provider/anthropic", serving=False)


def test_a_failure_is_written_back_and_anothers_is_heard_of(make_broker: MakeBroker) -> None:
    """The other program and the broker share their cooldowns; a restart loses none."""
    broker = make_broker()
    write(broker, profiles={"anthropic:a": key(KEY), "anthropic:b": key(OTHER_KEY)}, futureField=[1])
    broker.start()
    with broker.connect() as client:
        lease = client.acquire("anthropic")
        client.report(lease, Outcome.RATE_LIMIT)
        soon(lambda: bool(stats(broker, lease.profile).get("cooldownUntil")))
        other = ({"anthropic:a", "anthropic:b"} - {lease.profile}).pop()
        assert {client.acquire("anthropic").profile for _ in range(3)} == {other}
    document = json.loads(path_of(broker).read_text())
    assert document["futureField"] == [1]
    assert document["usageStats"][lease.profile]["failureCounts"] == {"rate_limit": 1}
    broker.stop()
    document["usageStats"] = {other: {"cooldownUntil": LATER, "errorCount": 1, "lastFailureAt": int(time.time() * 1000)}}
    document["usageStats"][lease.profile] = {"lastUsed": int(time.time() * 1000) + 1000}
    write(broker, **document)
    broker.start()
    with broker.connect() as client:
        assert {client.acquire("anthropic").profile for _ in range(3)} == {lease.profile}


def test_stores_of_agents_are_theirs_and_mains_is_everybodys(make_broker: MakeBroker) -> None:
    """An agent's own profile hides everybody's of the same name; its order is its own; nobody's secrets are copied."""
    broker = make_broker(config="agents:\n  main: {}\n  coder: {providers: ['*']}\n")
    write(broker, profiles={"anthropic:default": key(KEY), "openai:default": {"type": "api_key", "key": "of-everybody"}})
    write(broker, "coder", profiles={"anthropic:default": key(OTHER_KEY)})
    broker.start()
    assert (served(broker), served(broker, agent="coder")) == (KEY, OTHER_KEY)
    assert served(broker, "openai", agent="coder") == "of-everybody"
    assert "of-everybody" not in path_of(broker, "coder").read_text()
    done = broker.run("models", "auth", "order", "set", "--provider", "openai", "--agent", "coder", "openai:default")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(path_of(broker, "coder").read_text())["order"] == {"openai": ["openai:default"]}
    write(broker, order={"anthropic": ["anthropic:other"]}, profiles={"anthropic:default": key(KEY)})
    soon(lambda: "anthropic:other: no source holds it" in refusal(broker))
    assert served(broker, agent="coder") == OTHER_KEY


def test_claudes_login_is_served_and_followed(make_broker: MakeBroker) -> None:
    """Without any configuration, wherever Claude keeps it; of its copy in a store the later one is served."""
    broker = make_broker()
    write_login(broker, TOKEN, folder="elsewhere")
    broker.environ["CLAUDE_CONFIG_DIR"] = str(broker.home / "elsewhere")
    write(broker, profiles={"anthropic:claude-cli": {"type": "oauth", "access": NEWER, "refresh": "r", "expires": LATER - 1}})
    broker.start()
    assert served(broker, "anthropic:claude-cli") == TOKEN
    done = broker.run("models", "status", "--json")
    assert json.loads(done.stdout)["auth"]["oauth"]["profiles"][0]["profileId"] == "anthropic:claude-cli"
    write_login(broker, NEWER, LATER + 5000, folder="elsewhere")
    soon(lambda: served(broker, "anthropic:claude-cli") == NEWER)
    before = path_of(broker).read_bytes()
    broker.run("models", "status")
    assert path_of(broker).read_bytes() == before


def test_after_a_logout_no_copy_is_handed_out(make_broker: MakeBroker) -> None:
    """P11: neither while the broker runs nor after a restart; the copy is gone from the store as well."""
    broker = make_broker()
    write_login(broker, TOKEN)
    assert broker.run("onboard", "--auth-choice", "claude-cli").returncode == 0
    broker.start("--config", str(broker.home / "equabot.yaml"), service="profile/anthropic:claude-cli")
    assert served(broker, "anthropic:claude-cli") == TOKEN
    (broker.home / ".claude" / ".credentials.json").write_text("{}")
    soon(lambda: "anthropic:claude-cli" not in broker.run("models", "status", "--plain").stdout)
    soon(lambda: json.loads(path_of(broker).read_text())["profiles"] == {})


def test_a_tools_login_is_refreshed_where_the_operator_says_so(make_broker: MakeBroker, tmp_path: Path) -> None:
    """It is redeemed in the store, served from there, and goes back into the tool's own file, whose rest stays."""
    with TokenEndpoint(tmp_path / "ledger", life=3600) as endpoint:
        broker = make_broker(
            config="sources: [profile_store: {}, claude_cli: {refresh: true}]\n"
            f"providers: {{anthropic: {{token_url: '{endpoint.url}', token_prefixes: [at_]}}}}\n"
        )
        login = endpoint.login("me", life=60)
        file = broker.home / ".claude" / ".credentials.json"
        file.parent.mkdir()
        tokens = {"accessToken": login["access"], "refreshToken": login["refresh"], "expiresAt": login["expires"]}
        file.write_text(json.dumps({"claudeAiOauth": tokens | {"scopes": ["x"]}, "mcpOAuth": {}}))
        broker.start()
        soon(lambda: json.loads(file.read_text())["claudeAiOauth"]["refreshToken"] != login["refresh"])
        after = json.loads(file.read_text())
        assert after["mcpOAuth"] == {}
        assert after["claudeAiOauth"]["scopes"] == ["x"]
        assert after["claudeAiOauth"]["expiresAt"] > login["expires"]
        assert served(broker, "anthropic:claude-cli") == after["claudeAiOauth"]["accessToken"]
        assert endpoint.accepts(after["claudeAiOauth"]["accessToken"])
        verdicts = [entry.verdict for entry in endpoint.ledger() if entry.event == "presented"]
        assert verdicts == ["redeemed"]


def test_a_sealed_store_is_served_and_shows_nothing(make_broker: MakeBroker) -> None:
    """Sealed with the first write of whoever has the key."""
    broker = make_broker(config="seal: {key_file: seal.key}\n")
    (broker.home / "seal.key").touch(mode=0o600)
    (broker.home / "seal.key").write_bytes(os.urandom(32))
    write(broker, profiles={"anthropic:default": key(KEY)})
    broker.start()
    with broker.connect() as client:
        lease = client.acquire("anthropic")
        assert lease.secret.reveal() == KEY
        client.report(lease, Outcome.TIMEOUT)
    soon(lambda: "sealed" in json.loads(path_of(broker).read_text()))
    assert "anthropic" not in path_of(broker).read_text()
    assert served(broker, "anthropic:default") == KEY
    assert broker.run("models", "auth", "list").stdout.count("anthropic:default") == 1


@pytest.mark.parametrize("mode", [0o644, 0o666])
def test_a_seal_key_that_others_can_read_or_change_keeps_a_broker_from_starting(make_broker: MakeBroker, mode: int) -> None:
    """S14: with the command that closes it."""
    broker = make_broker(config="seal: {key_file: seal.key}\n")
    sealing = broker.home / "seal.key"
    sealing.write_bytes(os.urandom(32))
    sealing.chmod(mode)
    done = broker.run("serve")
    assert done.returncode == 1
    assert f"seal.key_file: the key file {sealing} has mode 0{mode:o}" in done.stderr
    assert f"chmod 600 {sealing}" in done.stderr
    sealing.chmod(0o440)
    broker.start()


def test_credentials_of_older_files_are_served(make_broker: MakeBroker) -> None:
    """Once moved they stay; the log says where from and where the backup is."""
    broker = make_broker()
    old = path_of(broker).with_name("auth.json")
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps({"anthropic": {"type": "api_key", "key": KEY}}))
    broker.start()
    assert served(broker, "anthropic:default") == KEY
    assert f"moved anthropic:default from {old} to {path_of(broker)}; the file is kept as auth.json.migrated" in broker.log()
    assert KEY not in broker.log()
    assert not old.exists()


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_store_open_to_everybody_is_a_finding(make_broker: MakeBroker, mode: int) -> None:
    """It serves all the same, and the broker's first write closes it."""
    broker = make_broker()
    path = write(broker, profiles={"anthropic:default": key(KEY)})
    path.chmod(mode)
    broker.start()
    assert ("other users than its owner can access" in broker.run("doctor").stdout) is (mode == 0o644)
    with broker.connect() as client:
        client.report(client.acquire("anthropic"), Outcome.TIMEOUT)
    soon(lambda: path.stat().st_mode & 0o777 == 0o600 and bool(stats(broker, "anthropic:default")))
