"""Whose socket a caller speaks to: root's, its own, the named broker's, or that of a user whom one of those has let in."""

import os
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from equabot_client import connect
from equabot_client._ownership import Ownership, named_user
from equabot_client.errors import BrokerNotTrusted, BrokerUnavailable

BROKER, STRANGER, GROUP = 54320, 54322, 54321
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to other users")


def bound(directory: Path, *, owner: int | None = None, mode: int = 0o660) -> Path:
    """A socket in the directory."""
    path = directory / "broker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    path.chmod(mode)
    if owner is not None:
        os.chown(path, owner, owner)
    return path


def made(path: Path, mode: int, *, owner: int | None = None, group: int = -1) -> Path:
    """A directory with that mode and owner."""
    path.mkdir()
    if owner is not None:
        os.chown(path, owner, group)
    path.chmod(mode)
    return path


def check(path: Path, *, named: int | None = None) -> None:
    Ownership(path, named=named).check()


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o1777])
def test_a_socket_of_our_own_will_do(place: Path, mode: int) -> None:
    """Also in a sticky directory, where no one can put another in its place."""
    check(bound(made(place / "run", mode)))


@pytest.mark.parametrize("mode", [0o777, 0o2777, 0o757, 0o733])
@pytest.mark.parametrize("above", [False, True])
def test_a_directory_that_everyone_may_write_is_refused(place: Path, mode: int, above: bool) -> None:
    """S15: whoever owns the socket that is there now."""
    path = bound(made(place / "above", 0o755))
    opened = place if above else path.parent
    opened.chmod(mode)
    with pytest.raises(BrokerNotTrusted, match=f"{opened} has mode {mode:04o}, with which other users can put a socket"):
        check(path)


@needs_root
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o755])
def test_a_strangers_directory_in_one_that_everyone_may_write_is_refused(place: Path, mode: int) -> None:
    """S15: such as `/tmp/equabot`, which anyone can have made before the broker did."""
    place.chmod(0o1777)
    path = bound(made(place / "run", mode, owner=STRANGER), owner=STRANGER)
    with pytest.raises(
        BrokerNotTrusted, match=f"{path.parent} belongs to user {STRANGER}, to whom neither root nor this user gave it"
    ):
        check(path)


@needs_root
def test_a_strangers_socket_in_a_sticky_directory_is_refused(place: Path) -> None:
    """S15: it lay there before the broker's."""
    path = bound(made(place / "run", 0o1777), owner=STRANGER)
    with pytest.raises(BrokerNotTrusted, match=f"{path} belongs to user {STRANGER}, and every user can put one there"):
        check(path)


@needs_root
@pytest.mark.parametrize(("mode", "socket_mode"), [(0o750, 0o660), (0o700, 0o600), (0o2775, 0o660)])
def test_a_user_to_whom_root_gave_the_directory_is_the_brokers(place: Path, mode: int, socket_mode: int) -> None:
    """As systemd makes `/run/equabot` for the user of its service, or a pod's `fsGroup` for the broker's container."""
    check(bound(made(place / "run", mode, owner=BROKER, group=GROUP), owner=BROKER, mode=socket_mode))


@needs_root
def test_a_socket_that_everyone_may_open_is_not_a_brokers(place: Path) -> None:
    """S15: the broker's own lets in its group and no one else."""
    path = bound(made(place / "run", 0o755, owner=BROKER), owner=BROKER, mode=0o666)
    with pytest.raises(BrokerUnavailable, match=f"{path} belongs to user {BROKER} and is open to every user"):
        check(path)


@needs_root
def test_a_named_user_is_the_only_one(place: Path) -> None:
    """S15: EQUABOT_BROKER_UID, for a volume that says nothing about its users."""
    directory = made(place / "run", 0o3777, owner=0, group=GROUP)
    path = bound(directory, owner=BROKER)
    with pytest.raises(BrokerNotTrusted, match="EQUABOT_BROKER_UID"):
        check(path)
    check(path, named=BROKER)
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(BrokerNotTrusted, match=f"belongs to user {STRANGER}, and EQUABOT_BROKER_UID names {BROKER}"):
        check(path, named=BROKER)


@needs_root
def test_a_volume_that_is_mounted_read_only_holds_what_the_pod_put_there(place: Path) -> None:
    """As an agent's container mounts its socket: the emptyDir is open to everyone who can write to it, and here no one can."""
    volume = made(place / "volume", 0o3777, owner=0, group=GROUP)
    path = bound(volume, owner=BROKER)
    mounted = made(place / "mounted", 0o755)
    done = subprocess.run(["mount", "--bind", volume, mounted], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", mounted], check=True)
        check(mounted / path.name)
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)


@needs_root
def test_an_open_volume_of_a_container_holds_sockets_of_trusted_users_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S15: an emptyDir on disk, as the broker's own container has it, has mode 2777."""
    monkeypatch.setattr("equabot_client._ownership._MARKS", (str(place),))
    volume = made(place / "volume", 0o755)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=2777", "tmpfs", volume], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount")
    try:
        path = bound(volume)
        check(path)
        os.chown(path, STRANGER, STRANGER)
        with pytest.raises(BrokerNotTrusted, match="every user can put one there"):
            check(path)
        monkeypatch.setattr("equabot_client._ownership._MARKS", ())
        monkeypatch.setattr("equabot_client._ownership._MOUNTED", ())
        with pytest.raises(BrokerNotTrusted, match="has mode 2777"):
            check(path)
    finally:
        subprocess.run(["umount", "--lazy", volume], check=True)


@needs_root
def test_a_link_of_a_stranger_is_not_followed(place: Path) -> None:
    """S15: it leads elsewhere whenever its owner wants."""
    path = bound(made(place / "run", 0o755))
    open_to_all = made(place / "open", 0o1777)
    link = open_to_all / "run"
    link.symlink_to(path.parent)
    check(link / path.name)
    os.lchown(link, STRANGER, STRANGER)
    with pytest.raises(BrokerNotTrusted, match=f"{link} is a link of user {STRANGER}"):
        check(link / path.name)


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o777])
def test_a_socket_that_is_not_there_is_not_waited_for(place: Path, mode: int) -> None:
    """S15: gRPC would go on to try, and take a stranger's that comes first."""
    place.chmod(mode)
    for path in (place / "broker.sock", place / "run" / "broker.sock"):
        with pytest.raises(BrokerUnavailable, match="No such file or directory"):
            check(path)


def test_a_socket_is_looked_at_again_once_it_is_another(place: Path) -> None:
    """A broker that was started again has made another."""
    directory = made(place / "run", 0o755)
    path = bound(directory)
    ownership = Ownership(path, named=None)
    ownership.check()
    directory.chmod(0o777)
    ownership.check()
    path.unlink()
    bound(directory)
    with pytest.raises(BrokerNotTrusted):
        ownership.check()


@pytest.mark.parametrize("named", ["me", "-1", "1.5", "٣"])
def test_a_user_is_named_by_number(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name would mean another user in another container."""
    monkeypatch.setenv("EQUABOT_BROKER_UID", named)
    with pytest.raises(ValueError, match="EQUABOT_BROKER_UID: expected the number"):
        connect("/run/broker.sock")
    assert named_user({}) is None


def test_every_call_is_checked(place: Path) -> None:
    """S15: before anything is sent."""
    path = bound(made(place / "run", 0o777))
    with connect(str(path)) as broker, pytest.raises(BrokerNotTrusted):
        broker.acquire("anthropic")
    assert stat.S_ISSOCK(path.stat().st_mode)
