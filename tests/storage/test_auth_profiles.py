"""The store of an agent on real files: read with suspicion, written whole, locked against every other writer."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.formats.auth_document import AuthDocument, with_order
from equabot_broker.parsing.untrusted_json import LARGEST
from equabot_broker.ports import StoreFault
from equabot_broker.storage.auth_profiles import AuthProfiles

SECRET = "sk-ant-api03-" + "s3cr3t" * 12
KEY = {"type": "api_key", "provider": "anthropic", "key": SECRET}
STORE = {"version": 1, "profiles": {"anthropic:default": KEY}, "somethingNew": {"a": [1, 2.5, None, "é"]}}
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agents" / "main" / "agent" / "auth-profiles.json"


@pytest.fixture
def store(path: Path) -> AuthProfiles:
    return AuthProfiles(path, clock=SystemClock())


def put(path: Path, content: bytes | dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(0o600)
    return path


def ordered(*ids: str) -> Callable[[AuthDocument], AuthDocument]:
    return lambda document: with_order(document, "anthropic", ids)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_missing_store_is_empty_and_not_created(store: AuthProfiles, path: Path) -> None:
    """Nothing is created before something is stored."""
    assert store.read() == AuthDocument()
    assert store.inspect() == (AuthDocument(), ())
    assert not path.parent.exists()


def test_the_first_edit_creates_it_for_its_owner_alone(store: AuthProfiles, path: Path, tmp_path: Path) -> None:
    """0600 in directories of 0700, whatever the umask, two spaces, a newline at the end."""
    before = os.umask(0)
    try:
        store.edit(ordered("anthropic:a"))
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert [mode(step) for step in (path.parent, path.parents[1], path.parents[2])] == [0o700] * 3
    text = path.read_text()
    assert text == json.dumps({"version": 1, "profiles": {}, "order": {"anthropic": ["anthropic:a"]}}, indent=2) + "\n"
    assert store.inspect() == (store.read(), ())


def test_edit_keeps_other_content(store: AuthProfiles, path: Path) -> None:
    """Fields and entries that this version does not know are written back."""
    put(path, STORE)
    written = store.edit(ordered("anthropic:default"))
    assert written.raw == STORE | {"order": {"anthropic": ["anthropic:default"]}}
    assert json.loads(path.read_text()) == written.raw
    assert store.read() == written


def test_an_unchanged_store_is_not_written(store: AuthProfiles, path: Path) -> None:
    """Nobody who follows the file is woken for nothing; a store that is not there stays so."""
    store.edit(lambda document: document)
    assert not path.exists()
    put(path, STORE)
    before = path.stat()
    store.edit(lambda document: AuthDocument({**document.raw}))
    assert path.stat() == before


def test_write_replaces_the_file_and_leaves_no_temporary_file(store: AuthProfiles, path: Path) -> None:
    """Whoever has the old one open goes on reading that, whole; a rest that a dead writer left is swept."""
    put(path, STORE)
    put(path.with_name(".auth-profiles.json.new"), b"half")
    with path.open("rb") as reading:
        store.edit(ordered("anthropic:default"))
        assert json.load(reading) == STORE
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".auth-profiles.json.guard", "auth-profiles.json"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (b"  \n\n", "it is empty"),
        (b"\0" * 4096, "it is empty"),
        (json.dumps(STORE).encode()[:-30], r"it breaks off in the middle \(at byte \d+\)"),
        (json.dumps(STORE).encode()[:-1], r"it breaks off in the middle \(at byte \d+\)"),
        (b'{"version": 1, "profiles": {} "x"}', r"it is not JSON \(at byte 30\)"),
        (b"\xef\xbb\xbf{,}", r"it is not JSON \(at byte 4\)"),
        ('{"a": "é",,}'.encode(), r"it is not JSON \(at byte 11\)"),
        (SECRET.encode(), r"it is not JSON \(at byte 0\)"),
        (b'{"key": "\xff' + SECRET.encode() + b'"}', r"it is not UTF-8 text \(at byte 9\)"),
        (json.dumps(STORE).encode("utf-16"), r"it is not UTF-8 text \(at byte 0\)"),
        (b"[]", "it is not a JSON object"),
        (b'"text"', "it is not a JSON object"),
        (b'{"version": 2, "profiles": {}}', "its version is 2, where this program knows 1: use a newer program"),
        (b'{"version": "' + SECRET.encode() + b'"}', "its version is of another kind"),
        (b'{"profiles": []}', "its 'profiles' is not an object"),
        (b'{"order": ["a"]}', "its 'order' is not an object"),
        (b'{"usageStats": 1}', "its 'usageStats' is not an object"),
        (b'{"profiles": {"a:b": {}, "a:b": {}}}', "a key comes twice"),
        (b'{"expires": 1e999}', "out of range"),
        (b'{"expires": NaN}', "NaN"),
        (b'{"expires": ' + b"9" * 5000 + b"}", "a number too long"),
        (b"[" * 9_000 + b"]" * 9_000, "nested too deeply"),
        (b"[" * 200_000, "more than 20,000 objects and lists"),
        (b'{"version": 1, "sealed": {}}', "it is sealed"),
        (b" " * (LARGEST + 1), "larger than 4 MiB"),
    ],
)
def test_malformed_store_is_refused_and_unchanged(store: AuthProfiles, path: Path, content: bytes, why: str) -> None:
    """The file and the place in it are named, nothing of its bytes is, and no edit touches it."""
    put(path, content)
    attempts: list[Callable[[], object]] = [store.read, store.inspect, lambda: store.edit(ordered("anthropic:a"))]
    for attempt in attempts:
        with pytest.raises(StoreFault, match=why) as raised:
            attempt()
        assert str(path) in str(raised.value)
        assert SECRET not in repr(raised.value)
        assert raised.value.__context__ is None
    assert path.read_bytes() == content
    assert not path.with_name("auth-profiles.json.lock").exists()


def test_byte_order_mark_is_ignored(store: AuthProfiles, path: Path) -> None:
    """Some editors write one; the next edit does not."""
    put(path, b"\xef\xbb\xbf" + json.dumps(STORE).encode())
    assert store.read().raw == STORE
    store.edit(ordered("anthropic:default"))
    assert path.read_bytes().startswith(b"{")


def test_invalid_utf8_is_kept(store: AuthProfiles, path: Path) -> None:
    """An escape can write what UTF-8 cannot: it is written back as the escape."""
    put(path, b'{"note": "\\ud83d"}')
    store.edit(ordered("anthropic:a"))
    assert store.read().raw["note"] == "\ud83d"


def test_partially_written_store_is_read_again(store: AuthProfiles, path: Path) -> None:
    """OpenClaw empties the file, then fills it."""
    put(path, b"")
    timer = threading.Timer(0.02, lambda: put(path, STORE))
    timer.start()
    assert store.read().raw == STORE
    timer.join()


@pytest.mark.parametrize("loose", [0o644, 0o640, 0o660, 0o604])
def test_open_permissions_are_reported_and_fixed_by_an_edit(store: AuthProfiles, path: Path, loose: int) -> None:
    """An edit that changes nothing else is enough."""
    put(path, STORE).chmod(loose)
    document, doubts = store.inspect()
    assert document.raw == STORE
    assert len(doubts) == 1
    assert "other users than its owner can access" in doubts[0]
    store.edit(lambda document: document)
    assert mode(path) == 0o600
    assert store.inspect() == (document, ())


@pytest.mark.parametrize("opened", ["file", "directory"])
def test_store_writable_by_others_is_refused(store: AuthProfiles, path: Path, opened: str) -> None:
    """S25: what is in it may be another user's, as ssh has it of its files; it stays as it is, and the way back is said."""
    put(path, STORE)
    wide, where = (0o666, path) if opened == "file" else (0o777, path.parent)
    where.chmod(wide)
    for attempt in (store.read, store.inspect, lambda: store.edit(ordered("anthropic:a"))):
        with pytest.raises(StoreFault, match=f"{path} is not used, because {where} has mode 0{wide:o}.*equabot doctor --fix"):
            attempt()
    where.chmod(0o700)
    assert store.read().raw == STORE


def test_link_to_a_store_is_kept(store: AuthProfiles, path: Path, tmp_path: Path) -> None:
    """What it leads to is replaced, in its own directory."""
    target = put(tmp_path / "elsewhere" / "store.json", STORE)
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    store.edit(ordered("anthropic:default"))
    assert path.is_symlink()
    assert json.loads(target.read_text())["order"] == {"anthropic": ["anthropic:default"]}
    assert mode(target) == 0o600


def test_dangling_link_is_refused(store: AuthProfiles, path: Path, tmp_path: Path) -> None:
    """It may be a volume that is not mounted: a store begun anew would hide what is there."""
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "gone" / "store.json")
    for attempt in (store.read, lambda: store.edit(ordered("anthropic:a"))):
        with pytest.raises(StoreFault, match="a link to a path that does not exist"):
            attempt()
    assert not (tmp_path / "gone").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("linked", [False, True])
def test_a_store_of_another_user_is_refused(store: AuthProfiles, path: Path, tmp_path: Path, linked: bool) -> None:
    """Somebody else may have put it there."""
    target = put(tmp_path / "store.json" if linked else path, STORE)
    os.chown(target, NOBODY, NOBODY)
    if linked:
        path.parent.mkdir(parents=True)
        path.symlink_to(target)
    for attempt in (store.read, lambda: store.edit(ordered("anthropic:a"))):
        with pytest.raises(StoreFault, match=f"belongs to user {NOBODY}"):
            attempt()
    assert json.loads(target.read_text()) == STORE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_administrators_store_is_read_but_not_replaced(as_nobody: Path) -> None:
    """What root has put there is trusted; that it was root's must not silently change."""
    path = as_nobody / "auth-profiles.json"
    put(path, STORE)
    os.seteuid(0)
    os.chown(path, 0, 0)
    path.chmod(0o644)
    os.seteuid(NOBODY)
    store = AuthProfiles(path, clock=SystemClock())
    assert store.read().raw == STORE
    with pytest.raises(StoreFault, match="belongs to user 0 and is not replaced"):
        store.edit(ordered("anthropic:a"))
    assert json.loads(path.read_text()) == STORE


def test_unwritable_directory_has_a_remedy(as_nobody: Path) -> None:
    """Nothing has changed, and nothing is left lying about."""
    path = put(as_nobody / "auth-profiles.json", STORE)
    as_nobody.chmod(0o500)
    store = AuthProfiles(path, clock=SystemClock())
    assert store.read().raw == STORE
    with pytest.raises(StoreFault, match=r"cannot be locked for writing \(Permission denied\): let user"):
        store.edit(ordered("anthropic:a"))
    assert [entry.name for entry in as_nobody.iterdir()] == ["auth-profiles.json"]
    as_nobody.chmod(0o700)
    path.chmod(0o000)
    with pytest.raises(StoreFault, match=r"cannot be read \(Permission denied\): let the user"):
        store.read()


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_path_that_is_not_a_file_is_refused(store: AuthProfiles, path: Path, kind: str) -> None:
    """A pipe is not waited for."""
    path.parent.mkdir(parents=True)
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(StoreFault, match=str(path)):
        store.read()


def test_a_store_that_would_become_too_large_is_refused(store: AuthProfiles, path: Path) -> None:
    """Or the next reading would refuse it."""
    put(path, STORE)
    with pytest.raises(StoreFault, match="would become larger than 4 MiB"):
        store.edit(lambda document: AuthDocument({**document.raw, "note": "x" * LARGEST}))
    assert store.read().raw == STORE


def test_a_store_that_would_hold_too_many_profiles_is_refused(store: AuthProfiles, path: Path) -> None:
    """S24: or the next reading would refuse it, and all that is in it."""
    put(path, STORE)
    many = {f"openai:{n}": {"type": "api_key", "key": "k"} for n in range(1001)}
    with pytest.raises(StoreFault, match="cannot be written, because it holds more than 1,000 profiles"):
        store.edit(lambda document: AuthDocument({**document.raw, "profiles": many}))
    assert store.read().raw == STORE


def test_failing_change_releases_the_lock(store: AuthProfiles, path: Path) -> None:
    """The error is the change's own."""
    put(path, STORE)

    def fail(_: AuthDocument) -> AuthDocument:
        raise LookupError("no such profile")

    with pytest.raises(LookupError):
        store.edit(fail)
    assert store.edit(lambda document: document).raw == STORE


def test_several_edits_under_one_lock(store: AuthProfiles, path: Path) -> None:
    """What was written last is what the next one sees, and so does whoever only reads."""
    put(path, STORE)
    with store.locked() as locked:
        assert locked.document.raw == STORE
        locked.replace(with_order(locked.document, "anthropic", ["anthropic:a"]))
        assert store.read() == locked.document
        locked.edit(lambda document: with_order(document, "openai", ["openai:b"]))
    assert store.read().order == {"anthropic": ("anthropic:a",), "openai": ("openai:b",)}
    with pytest.raises(StoreFault, match="was released"):
        locked.replace(AuthDocument())


def test_replacement_keeps_a_write_without_the_lock(store: AuthProfiles, path: Path) -> None:
    """An edit takes it in instead."""
    put(path, STORE)
    with store.locked() as locked:
        put(path, STORE | {"other": True})
        with pytest.raises(StoreFault, match="ignores its lock"):
            locked.replace(AuthDocument())
        locked.edit(ordered("anthropic:default"))
    assert store.read().raw == STORE | {"other": True, "order": {"anthropic": ["anthropic:default"]}}


_WRITER = """
import sys
from pathlib import Path
from equabot_broker.formats.auth_document import with_entry
from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.storage.auth_profiles import AuthProfiles
store = AuthProfiles(Path(sys.argv[1]), clock=SystemClock())
for number in range(int(sys.argv[3])):
    store.edit(lambda d: with_entry(d, f"openai:{sys.argv[2]}-{number}", {"type": "api_key", "key": "k"}))
"""


def test_writers_of_several_processes_and_threads_lose_nothing(store: AuthProfiles, path: Path) -> None:
    """Each adds its own entries to one store; in the end all of them are there, and every reading in between was whole."""
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(n), "20"]) for n in range(3)]
    threads = [
        threading.Thread(target=lambda n=n: [store.edit(ordered(f"anthropic:{n}")) for _ in range(10)]) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    while any(writer.poll() is None for writer in writers):
        store.read()
    for thread in threads:
        thread.join()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert set(store.read().entries) == {f"openai:{n}-{i}" for n in range(3) for i in range(20)}
