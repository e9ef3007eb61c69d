"""Whose a Unix socket is. What answers on it gets the caller's requests, and the caller uses the keys that it hands out.

A caller trusts root, itself and the user named in `EQUABOT_BROKER_UID`. It trusts another user where one of those has given
that user a directory on the way to the socket: no one else can write to the directory above it, or that is mounted read-only.
Each directory on the way belongs to a trusted user, and no one else can write to it unless it is sticky or a container's
volume, in which only a trusted user's socket is accepted (ADR 23).
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from equabot_client import _convert, errors

_VARIABLE: Final = "EQUABOT_BROKER_UID"
_ROOT: Final = 0
_MARKS: Final = ("/.dockerenv", "/run/.containerenv", "/dev/termination-log")
_MOUNTED: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_EVERYONE: Final = 0o007
_ALL_IDS: Final = "0 0 4294967295"


def named_user(environ: Mapping[str, str]) -> int | None:
    """The user whom the environment names as the broker's. Raises ValueError for what is not a user's number."""
    named = environ.get(_VARIABLE, "")
    if named and not (named.isascii() and named.isdecimal()):
        raise ValueError(f"{_VARIABLE}: expected the number of the broker's user, such as 65532")
    return int(named) if named else None


class Ownership:
    """The check of one socket; `named` is the broker's user, where that is known. It is cheap while the socket is the same."""

    def __init__(self, socket: Path, *, named: int | None) -> None:
        self._socket = socket
        self._named = named
        self._checked: tuple[int, int, int] | None = None

    def check(self) -> None:
        """Raises BrokerNotTrusted, and BrokerUnavailable for a socket that is not there or not ready."""
        try:
            found = self._socket.stat()
        except OSError as missing:  # gRPC would go on to try, and take whatever comes there
            raise _convert.unavailable(f"unix:{self._socket}", missing.strerror or "") from None
        seen = (found.st_dev, found.st_ino, found.st_ctime_ns)
        if seen != self._checked:
            self._check(found)
            self._checked = seen

    def _check(self, found: os.stat_result) -> None:
        trusted = {_ROOT, os.geteuid()} | ({self._named} if self._named is not None else set())
        known = frozenset(trusted)
        for link in _links(self._socket):
            if not self._walk(link.parent, set(trusted)) and link.lstat().st_uid not in trusted:
                raise self._refusal(link, f"is a link of {_user(link.lstat().st_uid)}, who can lead it elsewhere")
        closed = self._walk(Path(os.path.realpath(self._socket)).parent, trusted)
        if self._named is not None and found.st_uid != self._named:
            raise self._refusal(self._socket, f"belongs to {_user(found.st_uid)}, and {_VARIABLE} names {self._named}")
        if found.st_uid not in trusted and not closed:
            raise self._refusal(self._socket, f"belongs to {_user(found.st_uid)}, and every user can put one there")
        if found.st_uid not in known and found.st_mode & _EVERYONE:
            raise errors.BrokerUnavailable(
                f"{self._socket} belongs to {_user(found.st_uid)} and is open to every user, so it is not a broker's,"
                " or the broker is still starting: try again, and check its owner"
            )

    def _walk(self, directory: Path, trusted: set[int]) -> bool:
        """Whether the trusted alone can make something in the directory; users who are vouched for on the way join them. Raises
        BrokerNotTrusted."""
        closed = True
        foreign = _unmapped()
        real = Path(os.path.realpath(directory))
        for step in (*reversed(real.parents), real):
            try:
                found = step.stat()
            except OSError:
                return closed
            if found.st_uid not in trusted and found.st_uid not in foreign:
                if not closed:
                    raise self._refusal(step, f"belongs to {_user(found.st_uid)}, to whom neither root nor this user gave it")
                trusted.add(found.st_uid)
            closed = not _open(step, found)
            if not closed and not found.st_mode & stat.S_ISVTX and not _is_volume(step, found):
                mode = f"{stat.S_IMODE(found.st_mode):04o}"
                raise self._refusal(step, f"has mode {mode}, with which other users can put a socket of theirs in its place")
        return closed

    def _refusal(self, path: Path, why: str) -> errors.BrokerNotTrusted:
        return errors.BrokerNotTrusted(
            f"{self._socket} may be another user's and not the broker's: {path} {why}. Give it to root or to the broker's user"
            f" and close it to others (chmod o-w), or name the broker's user in {_VARIABLE}"
        )


def _links(path: Path) -> Iterator[Path]:
    return (step for step in (*path.parents, path) if step.is_symlink())


def _open(directory: Path, found: os.stat_result) -> bool:
    """Whether users other than its owner can make something in it."""
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        return False
    return bool(found.st_mode & stat.S_IWOTH) or (bool(found.st_mode & stat.S_IWGRP) and _shared(found.st_gid))


def _is_volume(directory: Path, found: os.stat_result) -> bool:
    """Root mounted it into this container: who else may write there is decided by which containers it is mounted into."""
    inside = any(os.path.lexists(mark) for mark in _MARKS) or any(os.path.ismount(file) for file in _MOUNTED)
    return inside and found.st_uid == _ROOT and os.path.ismount(directory)


def _shared(gid: int) -> bool:
    """Whether the user database knows someone in the group next to root and this user. A private group has no other member, nor
    has a pod's `fsGroup`."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return bool(members - {user.pw_name for user in pwd.getpwall() if user.pw_uid in (_ROOT, os.geteuid())})


def _unmapped() -> frozenset[int]:
    """The user id that a user namespace shows for everyone outside of it. Empty where there is no such namespace."""
    try:
        mapped = " ".join(Path("/proc/self/uid_map").read_text().split())
        return frozenset() if mapped == _ALL_IDS else frozenset({int(Path("/proc/sys/kernel/overflowuid").read_text())})
    except (OSError, ValueError):
        return frozenset()


def _user(uid: int) -> str:
    try:
        return f"user {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"user {uid}"
