"""Logins of tools in the store of `main`, and back in the tool's file, on real files."""

import json
import os
from pathlib import Path

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.formats.auth_document import with_entry, with_fields
from equabot_broker.formats.tool_logins import CLAUDE, CODEX, QWEN, Tool
from equabot_broker.ports import StoreFault
from equabot_broker.providers import BUILT_IN
from equabot_broker.storage.auth_profiles import AuthProfiles
from equabot_broker.storage.login_sync import forget_copy, sync_login
from tests.fakes.clock import FakeClock

SOURCE = "claude_cli /home/me/.claude/.credentials.json"


@pytest.fixture
def store(tmp_path: Path) -> AuthProfiles:
    return AuthProfiles(tmp_path / "agent" / "auth-profiles.json", clock=FakeClock())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".credentials.json"


def write(file: Path, token: str, expires: float = 1.9e12) -> None:
    file.write_text(json.dumps({"claudeAiOauth": {"accessToken": token, "refreshToken": "never-copied", "expiresAt": expires}}))


def sync(file: Path, store: AuthProfiles, tool: Tool = CLAUDE, *, ours: bool = False) -> bool:
    rules = DiscoveryRules(BUILT_IN, foreign_logins=frozenset()) if ours else DiscoveryRules(BUILT_IN)
    return sync_login(tool, file, SOURCE, store, rules=rules, clock=FakeClock())


def test_newer_login_is_copied_again(file: Path, store: AuthProfiles) -> None:
    """In between the store is not even written; the refresh token never gets there."""
    write(file, "one")
    assert sync(file, store) is True
    before = store.path.stat()
    assert sync(file, store) is False
    assert store.path.stat() == before
    write(file, "two", 1.95e12)
    assert sync(file, store) is True
    assert store.read().entries == {
        "anthropic:claude-cli": {
            "type": "oauth",
            "provider": "anthropic",
            "access": "two",
            "expires": 1_950_000_000_000,
            "copiedFrom": SOURCE,
        }
    }
    assert "never-copied" not in store.path.read_text()


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", '{"claudeAiOauth": {"accessToken": "a"}}', "pipe"])
def test_missing_login_creates_no_store(file: Path, store: AuthProfiles, content: str | None) -> None:
    """What is wrong with the file is for its source to tell."""
    if content == "pipe":
        os.mkfifo(file)
    elif content is not None:
        file.write_text(content)
    assert sync(file, store) is False
    assert not store.path.exists()


def test_unusable_store_is_reported(file: Path, store: AuthProfiles) -> None:
    """And left as it is."""
    write(file, "one")
    store.path.parent.mkdir()
    store.path.write_text("{")
    with pytest.raises(StoreFault, match="breaks off"):
        sync(file, store)
    assert store.path.read_text() == "{"


REFRESHED = {"access": "newer", "refresh": "newer-refresh", "expires": 2_000_000_000_000}


def test_refreshed_login_is_written_back_to_the_tool(file: Path, store: AuthProfiles) -> None:
    """Where it is the broker's to refresh: the refresh token is in both places, what is newer goes over, the rest stays."""
    write(file, "one")
    contents = json.loads(file.read_text()) | {"mcpOAuth": {"x": 1}}
    contents["claudeAiOauth"]["scopes"] = ["user:inference"]
    file.write_text(json.dumps(contents))
    file.chmod(0o640)
    assert sync(file, store, ours=True) is True
    assert store.read().entries["anthropic:claude-cli"]["refresh"] == "never-copied"
    assert sync(file, store, ours=True) is False
    assert json.loads(file.read_text()) == contents
    store.edit(lambda document: with_fields(document, "anthropic:claude-cli", REFRESHED))
    assert sync(file, store, ours=True) is False
    tokens = {"accessToken": "newer", "refreshToken": "newer-refresh", "expiresAt": 2_000_000_000_000}
    assert json.loads(file.read_text()) == contents | {"claudeAiOauth": contents["claudeAiOauth"] | tokens}
    assert file.stat().st_mode & 0o777 == 0o640
    before = file.stat().st_mtime_ns
    assert sync(file, store, ours=True) is False
    assert file.stat().st_mtime_ns == before
    write(file, "two", 2.1e12)
    assert sync(file, store, ours=True) is True
    assert store.read().entries["anthropic:claude-cli"]["access"] == "two"


def test_a_login_that_was_copied_before_gets_its_refresh_token_when_it_becomes_the_brokers(
    file: Path, store: AuthProfiles
) -> None:
    """The operator switches it on, and nothing else has changed."""
    write(file, "one")
    sync(file, store)
    assert sync(file, store, ours=True) is True
    assert store.read().entries["anthropic:claude-cli"]["refresh"] == "never-copied"


@pytest.mark.parametrize(
    ("tool", "contents", "after"),
    [
        (
            CODEX,
            {"OPENAI_API_KEY": None, "tokens": {"access_token": "a", "refresh_token": "r", "account_id": "x"}},
            {"OPENAI_API_KEY": None, "tokens": {"access_token": "newer", "refresh_token": "newer-refresh", "account_id": "x"}},
        ),
        (
            QWEN,
            {"access_token": "a", "refresh_token": "r", "expiry_date": 1_900_000_000_000, "resource_url": "u"},
            {"access_token": "newer", "refresh_token": "newer-refresh", "expiry_date": 2_000_000_000_000, "resource_url": "u"},
        ),
    ],
)
def test_each_tool_has_its_own_format(
    file: Path, store: AuthProfiles, tool: Tool, contents: dict[str, object], after: dict[str, object]
) -> None:
    """Each in its own form."""
    file.write_text(json.dumps(contents))
    os.utime(file, (1.85e9, 1.85e9))
    assert sync(file, store, tool, ours=True) is True
    assert store.read().entries[tool.profile_id]["refresh"] == "r"
    store.edit(lambda document: with_fields(document, tool.profile_id, REFRESHED))
    assert sync(file, store, tool, ours=True) is False
    assert json.loads(file.read_text()) == after
    assert sync(file, store, tool, ours=True) is False
    assert store.read().entries[tool.profile_id]["access"] == "newer"


def test_file_of_the_tool_is_not_written_by_default(file: Path, store: AuthProfiles) -> None:
    """Though the store has something newer."""
    write(file, "one")
    sync(file, store)
    store.edit(lambda document: with_fields(document, "anthropic:claude-cli", REFRESHED))
    before = file.read_text()
    assert sync(file, store) is False
    assert file.read_text() == before


def test_unwritable_file_of_the_tool_is_reported(as_nobody: Path) -> None:
    """The tool would go on with a refresh token that is spent."""
    (as_nobody / "tool").mkdir()
    file, store = as_nobody / "tool" / "c.json", AuthProfiles(as_nobody / "agent" / "a.json", clock=FakeClock())
    write(file, "one")
    sync(file, store, ours=True)
    store.edit(lambda document: with_fields(document, "anthropic:claude-cli", REFRESHED))
    file.parent.chmod(0o500)
    with pytest.raises(StoreFault, match=f"{file} cannot be written"):
        sync(file, store, ours=True)
    file.parent.chmod(0o700)


@pytest.mark.parametrize("logged_out", [None, "{}", '{"claudeAiOauth": null}', '{"claudeAiOauth": {"accessToken": ""}}'])
def test_logout_of_the_tool_removes_the_copy(file: Path, store: AuthProfiles, logged_out: str | None) -> None:
    """P11: it is removed from the store; while the tool is logged in it stays, and so does what a person stored."""
    write(file, "one")
    sync(file, store)
    assert forget_copy(CLAUDE, file, SOURCE, store, rules=DiscoveryRules(BUILT_IN)) is False
    file.unlink() if logged_out is None else file.write_text(logged_out)
    assert forget_copy(CLAUDE, file, SOURCE, store, rules=DiscoveryRules(BUILT_IN)) is True
    assert store.read().entries == {}
    typed = {"type": "token", "provider": "anthropic", "token": "typed"}
    store.edit(lambda document: with_entry(document, "anthropic:claude-cli", typed))
    assert forget_copy(CLAUDE, file, SOURCE, store, rules=DiscoveryRules(BUILT_IN)) is False
    assert store.read().entries == {"anthropic:claude-cli": typed}


def test_malformed_file_of_the_tool_keeps_the_copy(file: Path, store: AuthProfiles) -> None:
    """P11: a tool may be writing it just now."""
    write(file, "one")
    sync(file, store)
    file.write_text('{"claudeAiOauth": {"acc')
    assert forget_copy(CLAUDE, file, SOURCE, store, rules=DiscoveryRules(BUILT_IN)) is False
    assert "anthropic:claude-cli" in store.read().entries
