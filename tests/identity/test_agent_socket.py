"""One socket an agent: where it lies, who may use it, and who may not take it away."""

import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from equabot_broker.domain.errors import CannotStart
from equabot_broker.identity.agent_socket import AgentSocket, SocketClaim, SocketInUse, claim, plan

NOBODY = 65534
STRANGER = 54322
GROUP = 54321


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    yield opened
    for one in opened:
        one.close()


def listen(path: Path, listeners: list[socket.socket]) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    listeners.append(server)
    server.bind(str(path))
    server.listen()
    return server


def bind_all(claimed: SocketClaim, listeners: list[socket.socket]) -> None:
    for path in (*(one.path for one in claimed.agents), claimed.admin):
        listen(path, listeners)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user without the rights of root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_every_agent_has_a_directory_of_its_own() -> None:
    """And admin and gateway have theirs; each path may be set on its own."""
    usual = plan(Path("/run/equabot"), ["main", "coder"])
    assert usual.agents == (
        AgentSocket("main", Path("/run/equabot/main/broker.sock")),
        AgentSocket("coder", Path("/run/equabot/coder/broker.sock")),
    )
    assert (usual.admin, usual.control) == (
        Path("/run/equabot/admin/broker.sock"),
        Path("/run/equabot/gateway/control.sock"),
    )
    assert usual.faults() == []
    moved = plan(
        Path("/run/equabot"),
        ["main", "coder"],
        admin=Path("/run/private/broker.sock"),
        control=Path("/run/private/control.sock"),
        agent_paths={"coder": Path("/srv/coder/s")},
    )
    assert [one.path for one in moved.agents] == [Path("/run/equabot/main/broker.sock"), Path("/srv/coder/s")]
    assert (moved.admin, moved.control) == (Path("/run/private/broker.sock"), Path("/run/private/control.sock"))
    assert moved.faults() == []


@pytest.mark.parametrize("agent", ["admin", "gateway"])
def test_names_of_the_brokers_own_directories_are_refused(agent: str) -> None:
    """An agent of that name would own the operator's, or the gateway's, directory."""
    assert any(f"{agent!r} cannot be the name of an agent" in fault for fault in plan(Path("/run/e"), [agent]).faults())


@pytest.mark.parametrize("agent", ["", ".", "..", "../admin", "a/b", "/etc", "-x", "a\0b", "a\nb", "Ünï", "a" * 64, "A", " "])
def test_names_that_are_no_directory_names_are_refused(agent: str) -> None:
    """No name leads out of the run directory."""
    faults = plan(Path("/run/e"), [agent]).faults()
    assert any("cannot be the name of an agent" in fault for fault in faults)


@pytest.mark.parametrize("agent", ["main", "a", "0", "code-review_2", "a" * 63])
def test_ordinary_names_are_taken(agent: str) -> None:
    """What is good for a directory and for Kubernetes is good for an agent."""
    assert plan(Path("/run/e"), [agent]).faults() == []


def test_a_path_too_long_for_a_socket_is_a_fault(tmp_path: Path) -> None:
    """107 bytes are the system's limit, counted as bytes and not as characters; it is said before anything is touched."""
    room = 107 - len("/main/broker.sock")
    for run_dir in (Path("/" + "a" * (room - 1)), Path("/" + "é" * ((room - 1) // 2))):
        assert not [fault for fault in plan(run_dir, ["main"]).faults() if "agent 'main'" in fault]
        longer = plan(run_dir.with_name(run_dir.name + "éé"), ["main"])
        assert any("the system's limit is 107" in fault and "agent 'main'" in fault for fault in longer.faults())
    longest = tmp_path / ("x" * (107 - len(os.fsencode(tmp_path)) - 1))
    with socket.socket(socket.AF_UNIX) as truth:
        truth.bind(str(longest))
        with pytest.raises(OSError, match="too long"), socket.socket(socket.AF_UNIX) as other:
            other.bind(f"{longest}y")


def test_all_faults_are_reported_at_once() -> None:
    """All faults at once, so that one correction is enough."""
    faults = plan(
        Path("/run/" + "x" * 120), ["gateway", "no/name"], admin=Path("relative/s"), control=Path("/run/../etc/s")
    ).faults()
    for what in ("'gateway' cannot be the name", "'no/name' cannot be the name", "relative/s", "/run/../etc/s", "limit is 107"):
        assert any(what in fault for fault in faults), what


@pytest.mark.parametrize(
    ("others", "what"),
    [
        ({"admin": "/run/e/main/admin.sock"}, "the admin socket"),
        ({"control": "/run/e/main/deeper/control.sock"}, "control socket"),
        ({"agent_paths": {"coder": "/run/e/main/coder.sock"}}, "agent 'coder'"),
        ({"agent_paths": {"coder": "/run/e/main/coder/broker.sock"}}, "agent 'coder'"),
        ({"agent_paths": {"main": "/run/e/broker.sock"}}, "the admin socket"),
        ({"admin": "/run/e/gateway/control.sock"}, "have the same path"),
    ],
)
def test_no_socket_is_within_reach_of_another_agent(others: dict[str, object], what: str) -> None:
    """An agent's container has its whole directory mounted: a socket in or below it would be the agent's too."""
    given = {
        name: {agent: Path(path) for agent, path in value.items()} if isinstance(value, dict) else Path(str(value))
        for name, value in others.items()
    }
    faults = plan(Path("/run/e"), ["main", "coder"], **given).faults()  # type: ignore[arg-type]
    assert any(what in fault for fault in faults)


def test_a_plan_with_faults_is_not_begun(run_dir: Path) -> None:
    """Every fault is in the error, and no directory is made."""
    with pytest.raises(CannotStart, match=r"(?s)'admin' cannot be the name.*'a b' cannot be the name"):
        claim(run_dir, ["admin", "a b"])
    assert not run_dir.exists()


# -- directories and modes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_let_in_whom_they_should(run_dir: Path, listeners: list[socket.socket], mask: int) -> None:
    """0750 and 0660 for agents, 0700 and 0600 for the operator, whatever the umask."""
    with umask(mask), claim(run_dir, ["main", "coder"]) as claimed:
        bind_all(claimed, listeners)
        listen(claimed.control, listeners)
        claimed.set_modes()
        modes = {str(found.relative_to(run_dir)): mode(found) for found in run_dir.rglob("*")}
    assert modes == {
        "broker.lock": 0o600,
        "main": 0o750, "main/broker.sock": 0o660, "coder": 0o750, "coder/broker.sock": 0o660,
        "admin": 0o700, "admin/broker.sock": 0o600, "gateway": 0o700, "gateway/control.sock": 0o600,
    }  # fmt: skip


def test_our_directories_of_an_earlier_run_are_put_right(run_dir: Path) -> None:
    """Modes that were widened since are narrowed again."""
    claim(run_dir, ["main"]).release()
    for name in ("main", "admin", "gateway"):
        (run_dir / name).chmod(0o777)
    claim(run_dir, ["main"]).release()
    assert [mode(run_dir / name) for name in ("main", "admin", "gateway")] == [0o750, 0o700, 0o700]


def test_directories_of_others_are_left_as_they_are(run_dir: Path, tmp_path: Path) -> None:
    """A configured path may be in any user's directory, for example in /tmp."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with claim(run_dir, ["main"], admin=shared / "admin.sock", control=tmp_path / "new" / "deep" / "control.sock"):
        assert mode(shared) == 0o1777
        assert mode(tmp_path / "new" / "deep") == 0o700


@pytest.mark.parametrize("where", ["run", "above", "main", "admin", "gateway"])
@pytest.mark.parametrize("as_it_is", [0o777, 0o2777, 0o757])
def test_a_directory_in_which_everyone_may_put_a_socket_is_refused(tmp_path: Path, where: str, as_it_is: int) -> None:
    """S15: the run directory, one above it, or one that was set for a socket. The error has the command that closes it."""
    above = tmp_path / "above"
    run_dir = above / "run"
    elsewhere = tmp_path / "elsewhere"
    for made in (run_dir, elsewhere):
        made.mkdir(parents=True)
    opened = {"run": run_dir, "above": above}.get(where, elsewhere)
    opened.chmod(as_it_is)
    paths = {
        "main": {"agent_paths": {"main": elsewhere / "s"}},
        "admin": {"admin": elsewhere / "s"},
        "gateway": {"control": elsewhere / "s"},
    }
    narrow = as_it_is & ~0o022
    with pytest.raises(
        CannotStart, match=rf"{opened} has mode {as_it_is:04o}, with which every user can .*: chmod {narrow:o} {opened}"
    ):
        claim(run_dir, ["main"], **paths.get(where, {}))  # type: ignore[arg-type]
    opened.chmod(narrow)
    claim(run_dir, ["main"], **paths.get(where, {})).release()  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory to another user")
@pytest.mark.parametrize("as_it_is", [0o777, 0o1777, 0o755, 0o700])
def test_a_directory_of_another_user_is_refused(place: Path, as_it_is: int) -> None:
    """S15: its owner could answer in the broker's place, whatever its mode."""
    run_dir = place / "run"
    run_dir.mkdir()
    os.chown(run_dir, STRANGER, STRANGER)
    run_dir.chmod(as_it_is)
    with pytest.raises(CannotStart, match=rf"{run_dir} belongs to user {STRANGER}: chown 0 {run_dir}, or choose another place"):
        claim(run_dir, ["main"])
    assert not list(run_dir.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a link another user's")
def test_a_link_that_another_user_can_lead_elsewhere_is_refused(place: Path) -> None:
    """S15: in a sticky directory, in which everyone may make one."""
    place.chmod(0o1777)
    (place / "meant").mkdir()
    (place / "run").symlink_to("meant")
    claim(place / "run", ["main"]).release()
    os.lchown(place / "run", STRANGER, STRANGER)
    with pytest.raises(CannotStart, match=f"is a link of user {STRANGER}, who can lead it elsewhere: name the directory"):
        claim(place / "run", ["main"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make what a kubelet makes")
@pytest.mark.parametrize("as_it_is", [0o3777, 0o1777, 0o2775])
def test_a_volume_of_a_pod_will_do(place: Path, listeners: list[socket.socket], as_it_is: int) -> None:
    """Of root and the pod's `fsGroup`: an emptyDir in memory is sticky, the members of a claim's group are the pod."""
    volume = place / "volume"
    volume.mkdir()
    os.chown(volume, 0, GROUP)
    volume.chmod(as_it_is)
    os.setegid(GROUP)
    try:
        with unprivileged(), claim(volume, ["main"]) as claimed:
            bind_all(claimed, listeners)
            claimed.set_modes()
    finally:
        os.setegid(0)


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_directories_that_are_made_on_the_way_are_no_one_elses(tmp_path: Path, mask: int) -> None:
    """S15: whatever the umask."""
    with umask(mask):
        claim(tmp_path / "a" / "run", ["main"], admin=tmp_path / "b" / "c" / "s").release()
    assert [mode(tmp_path / name) & 0o022 for name in ("a", "a/run", "b", "b/c")] == [0, 0, 0, 0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a directory to another group")
@pytest.mark.parametrize("hands_down", [True, False])
def test_the_group_of_the_run_directory_gets_the_agents_sockets(
    place: Path, listeners: list[socket.socket], hands_down: bool
) -> None:
    """As with a volume of a pod's `fsGroup`; the directories of admin and gateway are for the broker's user only."""
    run_dir = place / "run"
    run_dir.mkdir()
    os.chown(run_dir, -1, GROUP)
    run_dir.chmod(0o2770 if hands_down else 0o770)
    with claim(run_dir, ["main"]) as claimed:
        bind_all(claimed, listeners)
        claimed.set_modes()
        agent = claimed.agents[0].path
        assert (agent.parent.stat().st_gid, agent.stat().st_gid) == (GROUP, GROUP)
        assert mode(agent.parent) == (0o2750 if hands_down else 0o750)
        assert (mode(run_dir / "admin") & 0o777, mode(claimed.admin)) == (0o700, 0o600)
        os.setegid(GROUP)
        try:
            with unprivileged(), socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(agent))
                with pytest.raises(PermissionError), socket.socket(socket.AF_UNIX) as intruder:
                    intruder.connect(str(claimed.admin))
        finally:
            os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else for a while")
def test_a_group_we_may_not_give_is_not_an_obstacle(place: Path, listeners: list[socket.socket]) -> None:
    """An unprivileged broker on a directory of another group works, as well as it can."""
    run_dir = place / "run"
    run_dir.mkdir()
    os.chown(run_dir, NOBODY, GROUP)
    with unprivileged(), claim(run_dir, ["main"]) as claimed:
        bind_all(claimed, listeners)
        claimed.set_modes()
        assert mode(claimed.agents[0].path) == 0o660
        assert claimed.agents[0].path.stat().st_gid != GROUP


def test_a_fresh_tmpfs_will_do(tmp_path: Path, listeners: list[socket.socket]) -> None:
    """As an emptyDir in memory: empty, 1777, not ours to have made."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {made.stderr.strip()}")
    try:
        with claim(mounted, ["main"]) as claimed:
            bind_all(claimed, listeners)
            claimed.set_modes()
            assert mode(mounted) == 0o1777
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)


def test_a_directory_that_is_not_writable_is_said_with_the_remedy(tmp_path: Path, place: Path) -> None:
    """Who we are, which path, why, and what to set."""
    place.chmod(0o555)
    for run_dir in (place, place / "run"):
        with unprivileged(), pytest.raises(CannotStart, match=r"cannot use .* \(as uid \d+\): Permission denied.*--run-dir"):
            claim(run_dir, ["main"])
    place.chmod(0o755)
    assert not list(place.iterdir())
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    with pytest.raises(CannotStart, match="cannot use"):
        claim(in_the_way, ["main"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "main").write_text("kept")
    with pytest.raises(CannotStart, match="is not a directory"):
        claim(tmp_path / "run", ["main"])
    assert (tmp_path / "run" / "main").read_text() == "kept"


# -- one broker --------------------------------------------------------------------------------------------------------


def test_a_second_broker_on_the_run_directory_is_refused(run_dir: Path) -> None:
    """It learns whose it is, and the first one notices nothing."""
    with claim(run_dir, ["main"]):
        with pytest.raises(SocketInUse, match=rf"another broker \(pid {os.getpid()}\) runs on {run_dir}: stop it, or"):
            claim(run_dir, ["other"])
        assert not (run_dir / "other").exists()
    with claim(run_dir, ["other"]):
        assert (run_dir / "other").exists()


def test_a_killed_broker_leaves_nothing_that_stops_the_next(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its lock dies with it, its sockets are found to be stale, removed, and said to be."""
    script = """
import os, socket, sys
from pathlib import Path
from equabot_broker.identity.agent_socket import claim
claimed = claim(Path(sys.argv[1]), ["main"])
servers = []
for path in (claimed.agents[0].path, claimed.admin):
    servers.append(socket.socket(socket.AF_UNIX))
    servers[-1].bind(str(path))
    servers[-1].listen()
claimed.set_modes()
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, run_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(SocketInUse, match=rf"pid {first.pid}\)"):
            claim(run_dir, ["main"])
        assert (run_dir / "main" / "broker.sock").is_socket()
        first.send_signal(signal.SIGKILL)
        first.wait(60)
        assert (run_dir / "main" / "broker.sock").is_socket()
        with caplog.at_level(logging.INFO, "equabot_broker.identity.agent_socket"), claim(run_dir, ["main"]):
            assert not (run_dir / "main" / "broker.sock").exists()
            assert not (run_dir / "admin" / "broker.sock").exists()
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"removed a stale socket: {run_dir}/admin/broker.sock",
        f"removed a stale socket: {run_dir}/main/broker.sock",
    ]


@pytest.mark.parametrize("busy", [False, True])
def test_a_socket_with_a_running_server_is_refused(run_dir: Path, listeners: list[socket.socket], busy: bool) -> None:
    """Also one whose queue is full: it lives. It is not removed, and the run directory is free again."""
    path = run_dir / "main" / "broker.sock"
    path.parent.mkdir(parents=True)
    server = listen(path, listeners)
    if busy:
        server.listen(0)
        for _ in range(2):
            caller = socket.socket(socket.AF_UNIX)
            caller.setblocking(False)
            listeners.append(caller)
            caller.connect_ex(str(path))
    with pytest.raises(SocketInUse, match=f"a running server answers on {path}"):
        claim(run_dir, ["main"])
    assert path.is_socket()
    claim(run_dir, ["coder"]).release()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling"])
def test_what_is_not_a_socket_is_never_removed(run_dir: Path, listeners: list[socket.socket], kind: str) -> None:
    """A file of another user, or a link to another socket, stays; the error names it."""
    path = run_dir / "admin" / "broker.sock"
    path.parent.mkdir(parents=True)
    target = run_dir / "target"
    if kind == "file":
        path.write_text("kept")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            listen(target, listeners).close()
    with pytest.raises(CannotStart, match=f"{path} is not a socket, so it was left unchanged"):
        claim(run_dir, ["main"])
    assert os.path.lexists(path)
    assert kind != "file" or path.read_text() == "kept"
    assert kind != "link" or target.is_socket()


def test_a_lock_that_is_a_link_is_not_followed(run_dir: Path, tmp_path: Path) -> None:
    """A user who can write to the run directory cannot make the broker empty a file elsewhere."""
    precious = tmp_path / "precious"
    precious.write_text("kept")
    run_dir.mkdir()
    (run_dir / "broker.lock").symlink_to(precious)
    with pytest.raises(CannotStart, match="cannot use"):
        claim(run_dir, ["main"])
    assert precious.read_text() == "kept"


# -- the end -----------------------------------------------------------------------------------------------------------


def test_release_removes_our_sockets_only(run_dir: Path, listeners: list[socket.socket]) -> None:
    """A client that comes later finds no socket rather than a dead one; what replaced ours is not ours."""
    claimed = claim(run_dir, ["main", "coder"])
    bind_all(claimed, listeners)
    claimed.set_modes()
    main, coder = (one.path for one in claimed.agents)
    coder.unlink()
    listen(coder, listeners)
    claimed.release()
    assert not main.exists()
    assert not claimed.admin.exists()
    assert coder.is_socket()
    claimed.release()


def test_release_without_sockets_removes_nothing(run_dir: Path, listeners: list[socket.socket]) -> None:
    """A start that failed half way has settled nothing, so it knows no socket of its own."""
    with claim(run_dir, ["main"]) as claimed:
        listen(claimed.agents[0].path, listeners)
    assert claimed.agents[0].path.is_socket()


def test_a_socket_that_was_not_bound_is_said(run_dir: Path) -> None:
    """`settle` before the servers are bound is a defect that must show."""
    with claim(run_dir, ["main"]) as claimed, pytest.raises(CannotStart, match=r"main/broker.sock .*No such file"):
        claimed.set_modes()


def test_of_many_brokers_that_start_at_once_one_wins(run_dir: Path) -> None:
    """The lock decides, not the order of looking."""
    won: list[SocketClaim] = []
    refused: list[SocketInUse] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait(60)
        try:
            won.append(claim(run_dir, ["main"]))
        except SocketInUse as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), len(refused)) == (1, 7)
    won[0].release()
