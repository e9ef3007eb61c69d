import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest

from equabot_client import connect
from equabot_client._address import resolve
from equabot_client.errors import BrokerUnavailable

HERE = {"EQUABOT_RUN_DIR": "/elsewhere"}


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ("unix:/run/equabot/main/broker.sock", "unix:/run/equabot/main/broker.sock"),
        ("unix:///run/equabot/main/broker.sock", "unix:/run/equabot/main/broker.sock"),
        ("/run/equabot/main/broker.sock", "unix:/run/equabot/main/broker.sock"),
        (" /run/broker.sock\n", "unix:/run/broker.sock"),
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("localhost:9000", "localhost:9000"),
        ("[::1]:9000", "[::1]:9000"),
    ],
)
def test_every_way_to_write_an_address_becomes_one_target(given: str, target: str) -> None:
    """`unix:` with and without slashes, a bare path, and loopback TCP."""
    assert resolve(given, agent="main", environ={}) == target


@pytest.mark.parametrize("given", ["broker.example:443", "10.0.0.1:9000", "broker"])
def test_another_host_is_refused(given: str) -> None:
    """Secrets are not sent across a network without encryption."""
    with pytest.raises(ValueError, match="loopback"):
        resolve(given, agent="main", environ={})


@pytest.mark.parametrize("given", ["broker.example:443", "10.0.0.1:9000", "[fd00::1]:8443", "dns:///broker.agents.svc:8443"])
def test_another_host_will_do_for_who_is_identified(given: str) -> None:
    """A token or a certificate goes along, and that only over TLS."""
    assert resolve(given, agent="main", environ={}, identified=True) == given


@pytest.mark.parametrize("given", ["broker", "broker:", "a b:443", "-x:443"])
def test_what_is_no_host_and_port_is_refused_all_the_same(given: str) -> None:
    """A slip in an address, with a token at hand."""
    with pytest.raises(ValueError, match="expected unix:/path"):
        resolve(given, agent="main", environ={}, identified=True)


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    """It would otherwise fail later and less clearly."""
    with pytest.raises(ValueError, match="at most 107 bytes"):
        resolve("/" + "x" * 107, agent="main", environ={})


def test_the_environment_says_where_when_the_caller_does_not() -> None:
    """Explicit before EQUABOT_BROKER_ADDRESS before the run directory."""
    environ = HERE | {"EQUABOT_BROKER_ADDRESS": "/from/env.sock"}
    assert resolve("/explicit.sock", agent="main", environ=environ) == "unix:/explicit.sock"
    assert resolve(None, agent="main", environ=environ) == "unix:/from/env.sock"
    assert resolve(None, agent="reviewer", environ=HERE) == "unix:/elsewhere/reviewer/broker.sock"


def test_of_several_run_directories_the_one_with_a_socket_is_meant(place: Path) -> None:
    """A host may have an XDG directory that its broker does not use."""
    environ = {"XDG_RUNTIME_DIR": str(place / "xdg"), "EQUABOT_HOME": str(place / "home")}
    socket = place / "home" / "run" / "no-such-agent-elsewhere" / "broker.sock"
    socket.parent.mkdir(parents=True)
    socket.touch()
    assert resolve(None, agent="no-such-agent-elsewhere", environ=environ) == f"unix:{socket}"


@pytest.mark.parametrize("agent", ["", "..", "a/b"])
def test_an_agent_is_a_name_and_not_a_path(agent: str) -> None:
    """It becomes part of a path."""
    with pytest.raises(ValueError, match="not a name"):
        resolve(None, agent=agent, environ=HERE)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_socket_in_a_closed_directory_is_no_broker_with_what_to_do() -> None:
    """S25: a client of another user, not in the group of the sockets: no traceback, and exit code 3 of the commands."""
    run_dir = Path(tempfile.mkdtemp())
    run_dir.chmod(0o755)
    (run_dir / "main").mkdir(mode=0o700)
    os.seteuid(54322)
    try:
        address = resolve(None, agent="main", environ={"EQUABOT_RUN_DIR": str(run_dir)})
        with (
            connect(address) as broker,
            pytest.raises(BrokerUnavailable, match="may not open it: run as the broker"),
        ):
            broker.list_profiles()
    finally:
        os.seteuid(0)
        shutil.rmtree(run_dir)


def test_a_user_without_a_home_has_the_root_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that gives neither HOME nor an entry in the user database. The broker reads it in the same way."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    assert resolve(None, agent="main", environ={}).startswith("unix:/")
    assert resolve("~/broker.sock", agent="main", environ={}) == "unix:/broker.sock"
