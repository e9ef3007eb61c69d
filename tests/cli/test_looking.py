"""Commands that look change nothing: no file is written, replaced or made."""

import json
import time
from pathlib import Path

import pytest

from equabot_broker.formats.auth_document import PENDING
from tests.cli.test_onboard import log_in_to_claude
from tests.fakes.host import KEY, TOKEN, Host

LATER = int((time.time() + 9 * 86400) * 1000)
LOOKS = [
    ("models", "status"),
    ("models", "status", "--check"),
    ("models", "status", "--json"),
    ("models", "status", "--plain"),
    ("models", "auth", "order", "get", "--provider", "anthropic"),
    ("doctor",),
    ("config", "check"),
    ("gateway", "config"),
    ("onboard", "--auth-choice", "skip"),
    ("health",),
    ("lease", "list"),
    ("agent", "list"),
]


def tree(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Every file and directory: inode, mode, time of the last change, content."""
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (status.st_ino, status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture
def lived_in(host: Host) -> Host:
    """A host where every tool is logged in, with a store in which a refresh was broken off, and a `.env`."""
    log_in_to_claude(host, expires=LATER / 1000)
    for name, login in {
        ".codex/auth.json": {"tokens": {"access_token": "opaque", "refresh_token": "r", "account_id": "a"}},
        ".qwen/oauth_creds.json": {"access_token": "q", "refresh_token": "r", "expiry_date": LATER},
    }.items():
        (host.home / name).parent.mkdir()
        (host.home / name).write_text(json.dumps(login))
        (host.home / name).chmod(0o600)
    (host.home / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    broken_off = {"type": "oauth", "provider": "qwen-portal", "access": "a", "refresh": "r", "expires": LATER}
    profiles = {
        "anthropic:manual": {"type": "token", "provider": "anthropic", "token": TOKEN},
        "qwen-portal:default": {**broken_off, PENDING: {"sentAt": 1}},
    }
    host.write_store({"version": 1, "profiles": profiles})
    return host


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_a_command_that_looks_changes_nothing(lived_in: Host, words: tuple[str, ...]) -> None:
    """P11: compared are content, mode, inode and time of every file and directory of the home."""
    before = tree(lived_in.home)
    lived_in.run(*words)
    assert tree(lived_in.home) == before
