"""One Unix socket an agent, in a directory of its own: whoever can reach the socket is that agent.

`claim` makes sure, before anything listens, that no other broker is here, that the directories are there, and that no stale
socket is in the way; `SocketClaim.settle` gives the bound sockets their modes; `SocketClaim.release` takes them away again.
"""

import fcntl
import logging
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from equabot_broker.domain.errors import CannotStart
from equabot_broker.files.ownership import way_doubt
from equabot_broker.identity._socket_plan import AgentSocket, SocketPlan, plan

__all__ = ["AgentSocket", "SocketClaim", "SocketInUse", "SocketPlan", "claim", "plan"]

_log: Final = logging.getLogger(__name__)

_LOCK: Final = "broker.lock"
_RUN_MODE: Final = 0o755
_AGENT_MODE: Final = 0o750
_OWN_MODE: Final = 0o700
_AGENT_SOCKET_MODE: Final = 0o660
_OWN_SOCKET_MODE: Final = 0o600
_ANSWER_WITHIN: Final = 1.0


class SocketInUse(CannotStart):
    """Another broker lives here."""


def claim(
    run_dir: Path,
    agents: Iterable[str],
    *,
    admin: Path | None = None,
    control: Path | None = None,
    agent_paths: Mapping[str, Path] | None = None,
) -> "SocketClaim":
    """Makes the run directory ours until `release`, or until the process is gone, however it goes.

    Raises SocketInUse while another broker lives on it, and CannotStart for a plan with faults, a directory that cannot be
    used or in which another user could put a socket, and a file in a socket's place. Nothing but stale sockets is ever removed.
    """
    planned = plan(run_dir, agents, admin=admin, control=control, agent_paths=agent_paths)
    faults = planned.faults()
    if faults:
        raise CannotStart("; ".join(faults))
    with _explained(run_dir):
        _make_way(run_dir)
        _check_owners(run_dir)
        lock = _lock(run_dir)
    try:
        _prepare(planned)
    except BaseException:
        os.close(lock)
        raise
    return SocketClaim(planned, lock)


class SocketClaim:
    """A run directory that is ours. Leaving the `with` block releases it."""

    def __init__(self, planned: SocketPlan, lock: int) -> None:
        self._plan = planned
        self._lock: int | None = lock
        self._bound: dict[Path, tuple[int, int]] = {}

    @property
    def agents(self) -> tuple[AgentSocket, ...]:
        """Where each agent's server is to listen."""
        return self._plan.agents

    @property
    def admin(self) -> Path:
        """Where the operator's server is to listen."""
        return self._plan.admin

    @property
    def control(self) -> Path:
        """Where the gateway's control server is to listen, if there is one."""
        return self._plan.control

    def add(self, planned: SocketPlan, agents: Iterable[str]) -> tuple[AgentSocket, ...]:
        """Makes places for the sockets of more agents, as planned; `keep` makes them ours. Blocking. Raises CannotStart."""
        added = tuple(one for one in planned.agents if one.agent in agents)
        group = planned.run_dir.stat().st_gid
        for one in added:
            _prepare_agent(one, planned.run_dir, group=group)
        return added

    def keep(self, one: AgentSocket) -> None:
        """The socket of one more agent is bound: gives it its mode. Raises CannotStart."""
        self._settle_agent(one)

    def forget(self, path: Path) -> None:
        """That socket is gone."""
        self._bound.pop(path, None)

    def settle(self) -> None:
        """To be called once the servers are bound: 0660 and the directory's group for agents' sockets, 0600 for ours.

        Raises CannotStart for one that is not there.
        """
        for one in self._plan.agents:
            self._settle_agent(one)
        with _explained(self.admin):
            self._settle(self.admin, _OWN_SOCKET_MODE)
        with _explained(self.control):
            if self.control.is_socket():
                self._settle(self.control, _OWN_SOCKET_MODE)

    def _settle_agent(self, one: AgentSocket) -> None:
        with _explained(one.path):
            # Who may open the directory may use the socket: a group that mounts it has been given it for that.
            _give(one.path, group=one.path.parent.stat().st_gid)
            self._settle(one.path, _AGENT_SOCKET_MODE)

    def _settle(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        bound = path.lstat()
        self._bound[path] = (bound.st_dev, bound.st_ino)

    def release(self) -> None:
        """Removes our sockets, where they still are ours, and lets the next broker in. May be called again."""
        for path, ours in self._bound.items():
            with suppress(OSError):
                found = path.lstat()
                if (found.st_dev, found.st_ino) == ours:
                    path.unlink()
        self._bound.clear()
        if self._lock is not None:
            # The file stays: were it removed, two brokers could hold locks on two files of one name.
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _lock(run_dir: Path) -> int:
    lock = os.open(run_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        whose = f" (pid {holder})" if holder.isdecimal() else ""
        raise SocketInUse(f"another broker{whose} runs on {run_dir}: stop it, or give this one another --run-dir") from None
    except BaseException:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _prepare(planned: SocketPlan) -> None:
    group = planned.run_dir.stat().st_gid
    for one in planned.agents:
        _prepare_agent(one, planned.run_dir, group=group)
    _make_directory(planned.admin.parent, _OWN_MODE, ours=planned.run_dir / "admin")
    _make_directory(planned.control.parent, _OWN_MODE, ours=planned.run_dir / "gateway")
    for path in (planned.admin, planned.control):
        with _explained(path):
            _check_owners(path.parent)
            _clear(path)


def _prepare_agent(one: AgentSocket, run_dir: Path, *, group: int) -> None:
    _make_directory(one.path.parent, _AGENT_MODE, ours=run_dir / one.agent, group=group)
    with _explained(one.path):
        _check_owners(one.path.parent)
        _clear(one.path)


def _check_owners(directory: Path) -> None:
    """To an agent, a socket that another user put there looks like the broker's (ADR 23). Raises CannotStart."""
    doubt = way_doubt(directory)
    if doubt is not None:
        raise CannotStart(f"{doubt}. Until then another user could answer agents in the broker's place")


def _make_directory(path: Path, mode: int, *, ours: Path, group: int | None = None) -> None:
    """Makes it, with that mode. One that was there is left as it is, unless it is `ours` by its place and its owner."""
    with _explained(path):
        try:
            _make_way(path.parent)
            path.mkdir(mode=mode)
        except FileExistsError:
            if not path.is_dir():
                raise CannotStart(f"{path} is in the way of a socket's directory: move it away") from None
            if path != ours or path.stat().st_uid != os.geteuid():
                return
        if group is not None:
            _give(path, group=group)
        # A directory that hands down its group has been made to.
        path.chmod(mode | (path.stat().st_mode & stat.S_ISGID))


def _make_way(directory: Path) -> None:
    """Makes it and what is missing above it, for no one else to write, whatever the umask."""
    for step in (*reversed(directory.parents), directory):
        if not step.is_dir():
            step.mkdir(mode=_RUN_MODE, exist_ok=True)


def _give(path: Path, *, group: int) -> None:
    with suppress(PermissionError):
        if path.stat().st_gid != group:
            os.chown(path, -1, group)


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotStart(f"{path} is in the way: it is no socket, so it was left alone. Move it away, or set another path")
    if _answers(path):
        raise SocketInUse(f"a living server answers on {path}: stop it, or give this broker another --run-dir")
    path.unlink(missing_ok=True)
    _log.info("removed a stale socket: %s", path)


def _answers(path: Path) -> bool:
    """Whether somebody listens there. Raises PermissionError where that is not ours to know."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_WITHIN)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except PermissionError:
            raise
        except OSError:
            return True  # its queue is full, or it speaks something else: it lives
        return True


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotStart(
            f"cannot use {path} (as uid {os.geteuid()}): {error.strerror}. Make it writable for the broker, or set another"
            " --run-dir (EQUABOT_RUN_DIR)"
        ) from error
