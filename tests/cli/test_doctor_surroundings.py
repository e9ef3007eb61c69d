"""What `doctor` and `config check` see coming: variables, directories, keys, gateways."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.host import KEY, Host
from tests.strangers import without_rights_of_root


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.mark.parametrize("command", [("doctor",), ("config", "check")])
@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"ALL_PROXY": "socks5://me:pa55word@127.0.0.1:1"}, "ALL_PROXY"),
        ({"HTTPS_PROXY": "http://[::1"}, "HTTPS_PROXY"),
        ({"NO_PROXY": "fd00::/999"}, "NO_PROXY"),
        ({"SSL_CERT_FILE": "/nonexistent/ca.pem"}, "SSL_CERT_FILE"),
    ],
)
def test_variables_that_will_hurt_are_named_first(
    host: Host, command: tuple[str, ...], environ: dict[str, str], said: str
) -> None:
    """P2: before the first refresh, and without a password."""
    done = host.run(*command, **environ)
    assert said in done.out + done.err
    assert "pa55word" not in done.out + done.err
    assert "internal error" not in done.err


def test_variables_that_are_well_are_not_mentioned(host: Host) -> None:
    """P2: a proxy, and networks of both families without one."""
    done = host.run("config", "check", HTTPS_PROXY="http://127.0.0.1:3128", NO_PROXY="localhost,10.0.0.0/8,fd00::/8,[::1]")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("command", [("doctor",), ("config", "check")])
@pytest.mark.parametrize("closed", ["agents", "other"])
def test_directories_that_cannot_be_entered_are_named(tmp_path: Path, command: tuple[str, ...], closed: str) -> None:
    """P1: whose they are and what to do; a broker serves what it can reach."""
    home, other = tmp_path / "home", tmp_path / "other"
    (home / "agents/main/agent").mkdir(parents=True)
    (other / ".claude").mkdir(parents=True)
    (home / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    shut = {"agents": home / "agents", "other": other}[closed]
    shut.chmod(0)
    environ = {"HOME": str(other), "EQUABOT_HOME": str(home), "EQUABOT_RUN_DIR": str(home / "run"), "PATH": "/usr/bin:/bin"}
    program = [*without_rights_of_root(), sys.executable, "-m", "equabot_broker"]
    done = subprocess.run([*program, *command], env=environ, capture_output=True, text=True, check=False, timeout=60)
    key = subprocess.run([*program, "models", "status"], env=environ, capture_output=True, text=True, check=False, timeout=60)
    shut.chmod(0o700)
    assert "internal error" not in done.stderr + key.stderr
    assert "anthropic:dotenv" in key.stdout
    if closed == "other" or command == ("doctor",):
        assert str(shut) in done.stdout + done.stderr


def test_a_seal_key_that_is_none_is_named_before_anything_is_sealed(host: Host) -> None:
    """With the line, and not with what is in it."""
    key = host.home / "seal.key"
    key.write_text("not a key\n")
    key.chmod(0o600)
    host.write_config(f"seal: {{key_file: {key}}}\n")
    done = host.run("doctor")
    assert "line 1 of the key file" in done.out
    assert "not a key" not in done.out


def test_an_agent_that_can_get_nothing_is_named(host: Host) -> None:
    """Brokered leases alone, and no gateway."""
    host.write_config("agents: {main: {deliveries: [brokered]}}\n")
    assert "gateway.mode is off" in host.run("doctor").out
    host.write_config("agents: {main: {deliveries: [brokered]}}\ngateway: {mode: sidecar}\n")
    assert "gateway.mode is off" not in host.run("doctor").out
