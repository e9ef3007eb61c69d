"""Who can read or change a file or a directory, next to root and this process's user. The start checks and `doctor` ask here.

The rule is OpenSSH's, as far as the kernel would really let others in. A file or directory belongs to root or to this user, and
its mode gives no one else a right. A group counts as someone else where the user database knows another member: a user's
private group does not, nor does a pod's `fsGroup`. A sticky directory (`/tmp`, an emptyDir in memory) may be writable for
everyone, because it lets no one touch what is another's. So may a volume of a container: who can enter it is the pod's to say
(ADR 23).
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from equabot_broker.files.reading import Unreadable, read_whole

_ROOT: Final = 0
_MARKS: Final = ("/.dockerenv", "/run/.containerenv", "/dev/termination-log")
_MOUNTED: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_DEEDS: Final = {0o4: "read", 0o2: "change"}
_ALL_IDS: Final = b"0 0 4294967295"
_PROC_MAX: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class OwnershipDoubt:
    """Why a path cannot be relied on. `message` and `remedy` are phrases: "PATH MESSAGE: REMEDY". `mode` would
    remove the doubt, where this process may set it. `changeable`: others can change it, and not only read it."""

    path: Path
    message: str
    remedy: str
    mode: int | None = None
    changeable: bool = True

    def __str__(self) -> str:
        return f"{self.path} {self.message}: {self.remedy}"


def file_doubt(path: Path, *, secret: bool, anyones: bool = False, strict: bool = False) -> OwnershipDoubt | None:
    """What is wrong with the file: another user can change it or, where it is `secret`, read it. `anyones`: its owner may be
    anyone. `strict`: a file of this user gives its group no right. None: nothing, or no such file: what is no regular file is
    refused where it is read."""
    found = _found(path)
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    if not anyones and found.st_uid not in _trusted():
        return _owned_by_other(path, found)
    return _open_to(path, found, 0o6 if secret else 0o2, strict=strict and found.st_uid == os.geteuid())


def directory_doubt(path: Path, *, anyones: bool = False) -> OwnershipDoubt | None:
    """What is wrong with the directory: another user can put something else in the place of what is in it. None: nothing, or no
    such directory."""
    found = _found(path)
    if found is None:
        return None
    if not anyones and found.st_uid not in _trusted():
        return _owned_by_other(path, found)
    if found.st_mode & stat.S_ISVTX or _is_volume(path, found):
        return None
    return _open_to(path, found, 0o2)


def way_doubt(path: Path) -> OwnershipDoubt | None:
    """What is wrong with the directory, or with one above it on its way from the root, links included; the uppermost first."""
    foreign = _unmapped()
    for step in _steps(path):
        found = _found(step)
        if found is not None and found.st_uid in foreign and step != path:
            continue  # the machine's own, as it looks from inside a user namespace
        doubt = directory_doubt(step)
        if doubt is not None:
            return doubt
        if step.is_symlink() and step.lstat().st_uid not in _trusted() | foreign:
            owner = step.lstat().st_uid
            return OwnershipDoubt(
                step, f"is a link of {_user(owner)}, who can lead it elsewhere", "name the directory that is meant"
            )
    return None


def in_container() -> bool:
    """Whether this process is in a container: the usual marks, and what runtimes and kubelets mount into each."""
    return any(os.path.lexists(mark) for mark in _MARKS) or any(os.path.ismount(file) for file in _MOUNTED)


def owner_of(path: Path) -> int | None:
    """The id of the user whose file it is; None where that cannot be seen."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _is_volume(path: Path, found: os.stat_result) -> bool:
    """Root mounted it into this container, as a kubelet does with an emptyDir on disk (mode 2777). Its modes keep no one apart:
    who else may write there is decided by which containers it is mounted into."""
    return found.st_uid == _ROOT and os.path.ismount(path) and in_container()


def _steps(path: Path) -> Iterator[Path]:
    """Every directory that the path leads through, as it is written and as it is meant, from the root down."""
    written, real = path.absolute(), Path(os.path.realpath(path))
    steps = (*written.parents, written, *real.parents, real)
    yield from sorted(dict.fromkeys(steps), key=lambda step: len(step.parts))


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _trusted() -> frozenset[int]:
    return frozenset({_ROOT, os.geteuid()})


def _unmapped() -> frozenset[int]:
    """The user id that a user namespace shows for everyone outside of it. Empty where there is no such namespace."""
    try:
        mapped = b" ".join(read_whole("/proc/self/uid_map", limit=_PROC_MAX).split())
        overflow = int(read_whole("/proc/sys/kernel/overflowuid", limit=_PROC_MAX))
        return frozenset() if mapped == _ALL_IDS else frozenset({overflow})
    except (FileNotFoundError, Unreadable, ValueError):
        return frozenset()


def _owned_by_other(path: Path, found: os.stat_result) -> OwnershipDoubt:
    return OwnershipDoubt(path, f"belongs to {_user(found.st_uid)}", f"chown {os.geteuid()} {path}, or choose another place")


def _open_to(path: Path, found: os.stat_result, rights: int, *, strict: bool = False) -> OwnershipDoubt | None:
    """`rights`: the bits, as in one digit of a mode, that no one else may have. `strict`: nor the group."""
    mode = stat.S_IMODE(found.st_mode)
    theirs = mode >> 3 & rights
    others = others_in(found.st_gid) if theirs else []
    if mode & rights:
        who = "every user"
    elif others:
        who = f"group {_group(found.st_gid)} ({', '.join(others[:3])})"
    elif strict and theirs:
        who = f"group {_group(found.st_gid)}"
    else:
        return None
    granted = mode & rights | (theirs if others or strict else 0)
    deeds = " and ".join(word for bit, word in _DEEDS.items() if granted & bit)
    deed = "replace what is in it" if stat.S_ISDIR(found.st_mode) else f"{deeds} it"
    # A group that was given the file, by root or by a pod, goes on to need it.
    gone = (rights | 0o1 if rights & 0o4 else rights) * (0o11 if others or found.st_uid == os.geteuid() else 0o1)
    remedy, settable = _closing(path, found, mode & ~gone)
    return OwnershipDoubt(path, f"has mode {mode:04o}, with which {who} can {deed}", remedy, settable, bool(granted & 0o2))


def _closing(path: Path, found: os.stat_result, mode: int) -> tuple[str, int | None]:
    """The step that closes it where the reader is, and the mode, where this process may set it."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"it is mounted read-only: chmod {mode:o} its original; for a Secret's volume, set defaultMode: 0440", None
    if os.geteuid() in (_ROOT, found.st_uid):
        return f"chmod {mode:o} {path}", mode
    if found.st_gid in (os.getegid(), *os.getgroups()):
        return f"as its owner, chmod {mode:o} {path}", None
    # This process has its own rights as one of the others: a plain chmod would take them away as well.
    if stat.S_ISDIR(found.st_mode):
        return f"as its owner, chmod +t {path}", None
    return f"as its owner, chown {os.geteuid()} {path} and chmod {mode & 0o700:o} {path}", None


def others_in(gid: int) -> list[str]:
    """The users whom the user database knows in the group, but for root and this user."""
    try:
        members = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        members = set()
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    return sorted(members - {_name(_ROOT), _name(os.geteuid())})


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _user(uid: int) -> str:
    name = _name(uid)
    return f"user {uid} ({name})" if name else f"user {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
