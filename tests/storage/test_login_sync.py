"""Claude's login in the store of `main`, on real files."""

import json
import os
from pathlib import Path

import pytest

from broker.domain.discovery import Rules
from broker.ports import StoreFault
from broker.providers import BUILT_IN
from broker.storage.auth_profiles import AuthProfiles
from broker.storage.login_sync import sync_claude
from tests.fakes.clock import FakeClock


@pytest.fixture
def store(tmp_path: Path) -> AuthProfiles:
    return AuthProfiles(tmp_path / "agent" / "auth-profiles.json", clock=FakeClock())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".credentials.json"


def write(file: Path, token: str, expires: float = 1.9e12) -> None:
    file.write_text(json.dumps({"claudeAiOauth": {"accessToken": token, "refreshToken": "never-copied", "expiresAt": expires}}))


def sync(file: Path, store: AuthProfiles) -> bool:
    return sync_claude(file, store, rules=Rules(BUILT_IN), clock=FakeClock())


def test_it_is_copied_once_and_again_when_it_is_newer(file: Path, store: AuthProfiles) -> None:
    """In between the store is not even written; the refresh token never gets there."""
    write(file, "one")
    assert sync(file, store) is True
    before = store.path.stat()
    assert sync(file, store) is False
    assert store.path.stat() == before
    write(file, "two", 1.95e12)
    assert sync(file, store) is True
    assert store.read().entries == {
        "anthropic:claude-cli": {"type": "oauth", "provider": "anthropic", "access": "two", "expires": 1_950_000_000_000}
    }
    assert "never-copied" not in store.path.read_text()


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", '{"claudeAiOauth": {"accessToken": "a"}}', "pipe"])
def test_where_there_is_nothing_to_copy_nothing_is_made(file: Path, store: AuthProfiles, content: str | None) -> None:
    """What is wrong with the file is for its source to tell."""
    if content == "pipe":
        os.mkfifo(file)
    elif content is not None:
        file.write_text(content)
    assert sync(file, store) is False
    assert not store.path.exists()


def test_a_store_that_cannot_be_used_is_told(file: Path, store: AuthProfiles) -> None:
    """And left as it is."""
    write(file, "one")
    store.path.parent.mkdir()
    store.path.write_text("{")
    with pytest.raises(StoreFault, match="breaks off"):
        sync(file, store)
    assert store.path.read_text() == "{"
