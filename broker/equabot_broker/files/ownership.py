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
    """The reason not to trust a path. `message` and `remedy` are phrases for "PATH MESSAGE: REMEDY". `mode` would remove the
    doubt, if this process may set it. `changeable`: other users can change it, not only read it."""

    path: Path
    message: str
    remedy: str
    mode: int | None = None
    changeable: bool = True

    def __str__(self) -> str:
        return f"{self.path} {self.message}: {self.remedy}"


def file_doubt(path: Path, *, secret: bool, anyones: bool = False, strict: bool = False) -> OwnershipDoubt | None:
    """The doubt about a file: another user can change it or, if it is `secret`, read it. `anyones`: any user may own it.
    `strict`: a file of this user gives no right to its group. None if there is no doubt or no such file; files that are not
    regular are refused by the reader."""
    found = _found(path)
    if found is None or not stat.S_ISREG(found.st_mode):
        return None
    if not anyones and found.st_uid not in _trusted():
        return _owned_by_other(path, found)
    return _open_to(path, found, 0o6 if secret else 0o2, strict=strict and found.st_uid == os.geteuid())


def directory_doubt(path: Path, *, anyones: bool = False) -> OwnershipDoubt | None:
    """The doubt about a directory: another user can replace what is in it. None if there is no doubt or no such directory."""
    found = _found(path)
    if found is None:
        return None
    if not anyones and found.st_uid not in _trusted():
        return _owned_by_other(path, found)
    if found.st_mode & stat.S_ISVTX or _is_volume(path, found):
        return None
    return _open_to(path, found, 0o2)


def way_doubt(path: Path) -> OwnershipDoubt | None:
    """The doubts about a directory and each one above it, from the root, with those of links; the uppermost first."""
    foreign = _unmapped()
    for step in _steps(path):
        found = _found(step)
        if found is not None and found.st_uid in foreign and step != path:
            continue  # the owner of the machine, as a user namespace shows it
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
    """Whether this process is in a container: it checks the usual marks and the usual mounts of runtimes and kubelets."""
    return any(os.path.lexists(mark) for mark in _MARKS) or any(os.path.ismount(file) for file in _MOUNTED)


def owner_of(path: Path) -> int | None:
    """The user id of the file's owner; None if it cannot be read."""
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _is_volume(path: Path, found: os.stat_result) -> bool:
    """Whether root mounted it into this container, as a kubelet does for an emptyDir on disk (mode 2777). Its mode separates
    no users: the pod decides which containers mount it."""
    return found.st_uid == _ROOT and os.path.ismount(path) and in_container()


def _steps(path: Path) -> Iterator[Path]:
    """All directories on the path, with links and resolved, from the root down."""
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
    """The user id that a user namespace shows for all users outside. Empty outside of a user namespace."""
    try:
        mapped = b" ".join(read_whole("/proc/self/uid_map", limit=_PROC_MAX).split())
        overflow = int(read_whole("/proc/sys/kernel/overflowuid", limit=_PROC_MAX))
        return frozenset() if mapped == _ALL_IDS else frozenset({overflow})
    except (FileNotFoundError, Unreadable, ValueError):
        return frozenset()


def _owned_by_other(path: Path, found: os.stat_result) -> OwnershipDoubt:
    return OwnershipDoubt(path, f"belongs to {_user(found.st_uid)}", f"chown {os.geteuid()} {path}, or choose another place")


def _open_to(path: Path, found: os.stat_result, rights: int, *, strict: bool = False) -> OwnershipDoubt | None:
    """`rights` are the bits of a mode's digit that no other user may have. `strict`: not even the group."""
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
    # A group that root or a pod has set on the file still needs it.
    gone = (rights | 0o1 if rights & 0o4 else rights) * (0o11 if others or found.st_uid == os.geteuid() else 0o1)
    remedy, settable = _closing(path, found, mode & ~gone)
    return OwnershipDoubt(path, f"has mode {mode:04o}, with which {who} can {deed}", remedy, settable, bool(granted & 0o2))


def _closing(path: Path, found: os.stat_result, mode: int) -> tuple[str, int | None]:
    """The command that closes it for the reader's situation, and the mode, if this process may set it."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"it is mounted read-only: chmod {mode:o} its original; for a Secret's volume, set defaultMode: 0440", None
    if os.geteuid() in (_ROOT, found.st_uid):
        return f"chmod {mode:o} {path}", mode
    if found.st_gid in (os.getegid(), *os.getgroups()):
        return f"as its owner, chmod {mode:o} {path}", None
    # This process has access only as another user, so a plain chmod would remove its own access.
    if stat.S_ISDIR(found.st_mode):
        return f"as its owner, chmod +t {path}", None
    return f"as its owner, chown {os.geteuid()} {path} and chmod {mode & 0o700:o} {path}", None


def others_in(gid: int) -> list[str]:
    """The members of the group in the user database, except root and this user."""
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
