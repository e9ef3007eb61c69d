"""The lock of a store: one process writes at a time, whether it is a process of the broker or of OpenClaw.

Processes of the broker use `flock` on a guard file: the kernel releases it when its holder dies. OpenClaw uses a lock file
next to the store. The lock file is stale when its process is dead or when it is 30 seconds old. This lock takes both, and
renews the lock file while it holds it.
"""

import errno
import fcntl
import json
import os
import random
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from equabot_broker.domain.backoff import delays
from equabot_broker.domain.instants import rfc3339
from equabot_broker.files.reading import Unreadable, read_whole
from equabot_broker.ports import Clock, StoreFault

STALE_AFTER: Final = 30.0
RENEW_EVERY: Final = 10.0
_ATTEMPTS: Final = 10
_FIRST: Final = 0.1
_LONGEST: Final = 10.0
_GUARD_FIRST: Final = 0.005
_GUARD_LONGEST: Final = 0.1
_GUARD_WITHIN: Final = 60.0
_BODY_MAX: Final = 4096


class StoreLock:
    """The lock of one store, for one `acquire`. `path` is the path of the store, `real` the same path without links.

    When `abandoned` is set, a waiting `acquire` ends.
    """

    def __init__(
        self, path: Path, real: Path, *, clock: Clock, abandoned: threading.Event, renew_every: float = RENEW_EVERY
    ) -> None:
        self._store = path
        self._guard_path = real.with_name(f".{real.name}.guard")
        self._path = Path(os.path.realpath(path.parent)) / f"{path.name}.lock"
        self._clock = clock
        self._abandoned = abandoned
        self._renew_every = renew_every
        self._guard: int | None = None
        self._file: int | None = None
        self._mutex = threading.Lock()
        self._renewing: threading.Timer | None = None

    def acquire(self) -> None:
        """Waits for the lock. Raises StoreFault if another process keeps it too long, and OSError."""
        try:
            self._acquire_guard()
            self._acquire_file()
        except BaseException:
            self.release()
            raise
        self._renew_later()

    def release(self) -> None:
        """Releases the parts of the lock that are held."""
        with self._mutex:
            if self._renewing is not None:
                self._renewing.cancel()
                self._renewing = None
            if self._file is not None:
                with suppress(OSError):
                    if self._is_ours(self._file):
                        self._path.unlink()
                os.close(self._file)
                self._file = None
            if self._guard is not None:
                os.close(self._guard)
                self._guard = None

    def reacquire(self) -> None:
        """Waits for the lock file again if OpenClaw has taken it over, for example while the machine was suspended."""
        with self._mutex:
            if self._file is not None and not self._is_ours(self._file):
                os.close(self._file)
                self._file = None
                self._acquire_file()

    def stale_file(self) -> Path | None:
        """The stale lock file of OpenClaw, or None."""
        try:
            return self._path if self._stale(self._path.lstat()) else None
        except OSError:
            return None

    def is_held(self) -> bool:
        """Whether a process of the broker holds the lock. Creates and changes nothing."""
        try:
            guard = os.open(self._guard_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(guard, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(guard)
        return False

    # -- the guard file of the broker ------------------------------------------------------------------------------

    def _acquire_guard(self) -> None:
        self._guard = os.open(self._guard_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        waited = 0.0
        for pause in delays(base=_GUARD_FIRST, cap=_GUARD_LONGEST, rng=random.random):
            try:
                fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            else:
                return
            if waited > _GUARD_WITHIN:
                raise StoreFault(f"another equabot process has locked {self._store} for too long: end it, and try again")
            waited += pause
            self._wait(pause)

    def _wait(self, seconds: float) -> None:
        if self._abandoned.wait(seconds):
            raise StoreFault(f"waiting for the lock of {self._store} was cancelled")

    # -- the lock file of OpenClaw -----------------------------------------------------------------------------------

    def _acquire_file(self) -> None:
        for pause in islice(delays(base=_FIRST, cap=_LONGEST, rng=random.random), _ATTEMPTS):
            if self._create_file():
                return
            self._wait(pause)
        if not self._create_file():
            raise StoreFault(
                f"another program holds {self._path}: wait for it, or remove the file if no program uses the store"
            )

    def _create_file(self) -> bool:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        for _ in range(2):
            try:
                self._file = os.open(self._path, flags, 0o600)
            except FileExistsError:
                if not self._remove_stale():
                    return False
            else:
                self._write_body(self._file)
                return True
        return False

    def _write_body(self, file: int) -> None:
        created = rfc3339(self._clock.now())
        body = {"pid": os.getpid(), "createdAt": created, "ns": namespace()}
        text = json.dumps(body, indent=2).encode()
        os.pwrite(file, text, 0)
        os.ftruncate(file, len(text))

    def _is_ours(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.lstat())
        except OSError:
            return False

    def _remove_stale(self) -> bool:
        """Removes the lock file if it is stale, and returns whether the path is free."""
        try:
            found = self._path.lstat()
            if not self._stale(found):
                return False
            # Checked immediately before the removal: another process may have replaced the file, with the same inode.
            now = self._path.lstat()
            if os.path.samestat(found, now) and found.st_ctime_ns == now.st_ctime_ns:
                (os.rmdir if stat.S_ISDIR(found.st_mode) else os.unlink)(self._path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _stale(self, found: os.stat_result) -> bool:
        now = self._clock.now()
        # A time in the future is stale too: the clock was wrong, and a running holder writes the file again.
        if abs(now - found.st_mtime) > STALE_AFTER:
            return True
        if not stat.S_ISREG(found.st_mode):  # earlier versions of OpenClaw create a directory
            return False
        body = self._body()
        created = _instant(body.get("createdAt"))
        if created is not None and now - created > STALE_AFTER:
            return True
        pid, where = body.get("pid"), body.get("ns")
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0 or where not in (None, namespace()):
            return False
        # This process holds the guard but not yet this file: with our process id, a dead process left the file.
        return (pid == os.getpid() and where is not None) or not _alive(pid)

    def _body(self) -> dict[str, object]:
        try:
            body = json.loads(read_whole(self._path, limit=_BODY_MAX, follow=False))
        except (FileNotFoundError, Unreadable, ValueError, RecursionError):
            return {}
        return body if isinstance(body, dict) else {}

    def _renew_later(self) -> None:
        self._renewing = threading.Timer(self._renew_every, self._renew)
        self._renewing.daemon = True
        self._renewing.start()

    def _renew(self) -> None:
        with self._mutex:
            if self._file is None or self._renewing is None:
                return
            with suppress(OSError):
                if self._is_ours(self._file):
                    self._write_body(self._file)
            self._renew_later()


def namespace() -> str:
    """Identifies the PID namespace of this process: the boot of the machine, and the namespace."""
    try:
        boot = read_whole("/proc/sys/kernel/random/boot_id", limit=_BODY_MAX).decode().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except (OSError, Unreadable):
        return "unknown"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _instant(value: object) -> float | None:
    """Seconds since the epoch from a value of a lock file: an ISO 8601 text, or a number of milliseconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value).astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None
