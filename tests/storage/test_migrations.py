"""Files of older versions: their credentials are moved once, kept beside, and told."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from equabot_broker.engine.timing.clock import SystemClock
from equabot_broker.providers import BUILT_IN
from equabot_broker.storage.agent_stores import AgentStores
from equabot_broker.storage.migrations import Migration, backups, migrate, pending

KEY = {"type": "api_key", "key": "k"}
LOGIN = {"access": "a", "refresh": "r", "expires": 1_900_000_000_000, "enterpriseUrl": "u"}


def write(path: Path, contents: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
    path.chmod(0o600)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def old(home: Path, agent: str = "main") -> Path:
    return home / "agents" / agent / "agent" / "auth.json"


def store(home: Path, agent: str = "main") -> Path:
    return old(home, agent).with_name("auth-profiles.json")


def run(home: Path) -> list[Migration]:
    return migrate(AgentStores(home, clock=SystemClock()), home, catalog=BUILT_IN)


def entries(home: Path, agent: str = "main") -> Any:
    return json.loads(store(home, agent).read_text())["profiles"]


def test_no_older_files_mean_no_migration(home: Path) -> None:
    """Not even a directory is made."""
    assert (run(home), pending(home), backups(home)) == ([], [], [])
    assert list(home.iterdir()) == []


def test_an_agents_old_file_becomes_profiles(home: Path) -> None:
    """One for each provider, with all its fields; what is no credential stays in the backup."""
    file = write(old(home), {"anthropic": KEY, "z.ai": KEY | {"provider": "zai", "note": 1}, "odd": 5, "odder": {"type": "x"}})
    (done,) = run(home)
    assert done == Migration(file, store(home), ("anthropic:default", "zai:default"))
    assert entries(home) == {
        "anthropic:default": {"type": "api_key", "key": "k", "provider": "anthropic"},
        "zai:default": {"type": "api_key", "key": "k", "provider": "zai", "note": 1},
    }
    assert (
        str(done)
        == f"moved anthropic:default, zai:default from {file} to {store(home)}; the file is kept as auth.json.migrated"
    )
    assert "odder" in file.with_name("auth.json.migrated").read_text()
    assert not file.exists()


def test_old_oauth_tokens_become_logins_of_main(home: Path) -> None:
    """They do not say what they are."""
    file = write(home / "credentials" / "oauth.json", {"openai-codex": LOGIN})
    (done,) = run(home)
    assert done.moved == ("openai-codex:default",)
    assert entries(home) == {"openai-codex:default": LOGIN | {"type": "oauth", "provider": "openai-codex"}}
    assert backups(home) == [file.with_name("oauth.json.migrated")]


def test_each_file_is_migrated_once(home: Path) -> None:
    """A profile that was changed or removed since does not come back; no backup is written over."""
    write(old(home), {"anthropic": KEY})
    run(home)
    write(store(home), {"version": 1, "profiles": {}})
    assert run(home) == []
    assert entries(home) == {}
    write(old(home), {"openai": KEY})
    assert [done.moved for done in run(home)] == [("openai:default",)]
    names = ["auth.json.migrated", "auth.json.migrated.1", "auth-profiles.json.before-migration"]
    assert sorted(path.name for path in backups(home)) == sorted(names)


def test_store_is_backed_up_and_keeps_its_profiles(home: Path) -> None:
    """For whoever finds that something is amiss."""
    before = {"version": 1, "profiles": {"anthropic:default": KEY | {"key": "newer"}}, "x": 1}
    write(store(home), before)
    write(old(home), {"anthropic": KEY, "openai": KEY})
    (done,) = run(home)
    assert (done.moved, done.known) == (("openai:default",), ("anthropic:default",))
    assert entries(home)["anthropic:default"]["key"] == "newer"
    kept = store(home).with_name("auth-profiles.json.before-migration")
    assert json.loads(kept.read_text()) == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in backups(home)} == {0o600}
    assert "the store already has anthropic:default" in str(done)


def test_each_agent_has_its_own_store(home: Path) -> None:
    """Also one that the configuration does not name."""
    for agent in ("coder", "main"):
        write(old(home, agent), {"openai": KEY | {"key": agent}})
    assert pending(home) == [old(home, "coder"), old(home, "main")]
    assert len(run(home)) == 2
    assert [entries(home, agent)["openai:default"]["key"] for agent in ("coder", "main")] == ["coder", "main"]


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        ("", "it is empty"),
        ('{"anthropic": {"type"', "it breaks off"),
        ("[]", "it does not map providers to credentials"),
        ('{"version": 1, "profiles": {}}', "it does not map providers to credentials"),
    ],
)
def test_malformed_older_file_stays_and_is_reported(home: Path, contents: str, why: str) -> None:
    """Every time, until somebody has looked; other files are migrated all the same."""
    file = write(old(home), contents)
    write(home / "credentials" / "oauth.json", {"chutes": LOGIN})
    for expected in (2, 1):
        done = run(home)
        assert len(done) == expected
        assert str(done[0]).startswith(f"{file} cannot be migrated, because {why}")
    assert file.read_text() == contents
    assert list(entries(home)) == ["chutes:default"]


def test_a_store_that_cannot_be_used_leaves_the_old_file(home: Path) -> None:
    """Nothing is taken from where it was before it is where it belongs."""
    file = write(old(home), {"openai": KEY})
    write(store(home), "{")
    (done,) = run(home)
    assert "cannot be used: it breaks off" in done.fault
    assert file.exists()


def test_unwritable_directory_is_reported(as_nobody: Path) -> None:
    """With the remedy; nothing is lost."""
    file = write(as_nobody / "credentials" / "oauth.json", {"chutes": LOGIN})
    file.parent.chmod(0o500)
    (done,) = run(as_nobody)
    assert "Permission denied" in done.fault
    assert f"let user {os.geteuid()} write" in done.fault
    assert file.exists()
    assert list(entries(as_nobody)) == ["chutes:default"]
    file.parent.chmod(0o700)
    assert [again.known for again in run(as_nobody)] == [("chutes:default",)]
    assert not file.exists()


def test_key_in_place_of_a_provider_name_is_masked(home: Path) -> None:
    """S19: `doctor --fix` prints what was moved."""
    key = "sk-ant-api03-" + "k9Q2" * 12
    write(old(home), {key: KEY, "openai": KEY})
    (done,) = run(home)
    assert "k9Q2" not in str(done)
    assert "openai:default" in str(done)
