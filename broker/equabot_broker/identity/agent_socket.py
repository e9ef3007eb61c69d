"""One Unix socket per agent, in its own directory: a caller that can open the socket is that agent.

Before anything listens, `claim` checks that no other broker uses the run directory, creates the directories, and removes stale
sockets. `SocketClaim.set_modes` sets the modes of the bound sockets. `SocketClaim.release` removes them.
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
    """Another broker uses the run directory."""


def claim(
    run_dir: Path,
    agents: Iterable[str],
    *,
    admin: Path | None = None,
    control: Path | None = None,
    agent_paths: Mapping[str, Path] | None = None,
) -> "SocketClaim":
    """Claims the run directory until `release` or the end of the process.

    Raises SocketInUse if another broker runs on it. Raises CannotStart for a plan with faults, for a directory that cannot be
    used or in which another user could put a socket, and for another file at a socket's path. It removes stale sockets only.
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
    """A claimed run directory. Leaving the `with` block releases it."""

    def __init__(self, planned: SocketPlan, lock: int) -> None:
        self._plan = planned
        self._lock: int | None = lock
        self._bound: dict[Path, tuple[int, int]] = {}

    @property
    def agents(self) -> tuple[AgentSocket, ...]:
        """The sockets of the agents."""
        return self._plan.agents

    @property
    def admin(self) -> Path:
        """The socket of the operator."""
        return self._plan.admin

    @property
    def control(self) -> Path:
        """The gateway's control socket, if there is one."""
        return self._plan.control

    def add(self, planned: SocketPlan, agents: Iterable[str]) -> tuple[AgentSocket, ...]:
        """Prepares the sockets of more agents, as planned; `keep` adds them to the claim. Blocking. Raises CannotStart."""
        added = tuple(one for one in planned.agents if one.agent in agents)
        group = planned.run_dir.stat().st_gid
        for one in added:
            _prepare_agent(one, planned.run_dir, group=group)
        return added

    def keep(self, one: AgentSocket) -> None:
        """Sets the mode of an additional agent's socket after its bind. Raises CannotStart."""
        self._set_agent_mode(one)

    def forget(self, path: Path) -> None:
        """Removes that socket from the claim."""
        self._bound.pop(path, None)

    def set_modes(self) -> None:
        """Sets the modes after the servers have bound: 0660 and the directory's group for agents' sockets, 0600 for the
        others.

        Raises CannotStart for a missing socket.
        """
        for one in self._plan.agents:
            self._set_agent_mode(one)
        with _explained(self.admin):
            self._set_mode(self.admin, _OWN_SOCKET_MODE)
        with _explained(self.control):
            if self.control.is_socket():
                self._set_mode(self.control, _OWN_SOCKET_MODE)

    def _set_agent_mode(self, one: AgentSocket) -> None:
        with _explained(one.path):
            # A group that may open the directory may use the socket: it was mounted for that group.
            _give(one.path, group=one.path.parent.stat().st_gid)
            self._set_mode(one.path, _AGENT_SOCKET_MODE)

    def _set_mode(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        bound = path.lstat()
        self._bound[path] = (bound.st_dev, bound.st_ino)

    def release(self) -> None:
        """Removes the sockets that still belong to this claim, and frees the run directory. Idempotent."""
        for path, ours in self._bound.items():
            with suppress(OSError):
                found = path.lstat()
                if (found.st_dev, found.st_ino) == ours:
                    path.unlink()
        self._bound.clear()
        if self._lock is not None:
            # The lock file stays: if it were removed, two brokers could lock two files of the same name.
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
        raise SocketInUse(
            f"another broker{whose} runs on {run_dir}: stop it, or start this one with another --run-dir"
        ) from None
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
    """A socket of another user would look like the broker's to an agent (ADR 23). Raises CannotStart."""
    doubt = way_doubt(directory)
    if doubt is not None:
        raise CannotStart(f"{doubt}. Until then another user could answer agents in the broker's place")


def _make_directory(path: Path, mode: int, *, ours: Path, group: int | None = None) -> None:
    """Creates the directory with that mode. An existing one is left unchanged, unless its place and its owner make it
    `ours`."""
    with _explained(path):
        try:
            _make_way(path.parent)
            path.mkdir(mode=mode)
        except FileExistsError:
            if not path.is_dir():
                raise CannotStart(f"{path} is not a directory, but a socket's directory must be there: move it away") from None
            if path != ours or path.stat().st_uid != os.geteuid():
                return
        if group is not None:
            _give(path, group=group)
        # A directory with the set-group-ID bit passes on its group on purpose.
        path.chmod(mode | (path.stat().st_mode & stat.S_ISGID))


def _make_way(directory: Path) -> None:
    """Creates the directory and its missing parents, writable for this user only, whatever the umask."""
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
        raise CannotStart(f"{path} is not a socket, so it was left unchanged: move it away, or set another path")
    if _answers(path):
        raise SocketInUse(f"a running server answers on {path}: stop it, or start this broker with another --run-dir")
    path.unlink(missing_ok=True)
    _log.info("removed a stale socket: %s", path)


def _answers(path: Path) -> bool:
    """Whether a server listens there. Raises PermissionError if this user may not know."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_WITHIN)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except PermissionError:
            raise
        except OSError:
            return True  # its queue is full or it speaks another protocol: it runs
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
