"""What differs between two configurations."""

from pathlib import Path

import pytest

from equabot_broker.config.changes import changes, needs_restart
from equabot_broker.config.load import load, revision_of
from equabot_broker.config.model import Config


def configured(home: Path, text: str) -> Config:
    (home / "equabot.yaml").write_text(text)
    return load(environ={"EQUABOT_HOME": str(home), "HOME": str(home)}, home=home, default_run_dir=home / "run")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("run_dir: /tmp/other", ["run_dir", "state_path"]),
        ("state_path: /tmp/state.db", ["state_path"]),
        ("listen: {health: '127.0.0.1:1', admin: /tmp/a/b.sock}", ["listen.health", "listen.admin"]),
        ("agents: {main: {socket: /tmp/a/b.sock}}", ["agents.main.socket"]),
        ("audit: {path: /tmp/log, fail_closed: true}", ["audit.path", "audit.fail_closed"]),
        ("gateway: {mode: child, memory: 512Mi}", ["gateway.mode", "gateway.memory"]),
        ("seal: {key_file: /tmp/key}", ["seal.key_file"]),
        ("agents: {new: {socket: /tmp/a/b.sock}, main: {}}", []),
    ],
)
def test_what_a_running_broker_cannot_change_is_named(tmp_path: Path, text: str, keys: list[str]) -> None:
    """C15: with every key, in the words of the file."""
    assert needs_restart(configured(tmp_path, ""), configured(tmp_path, text)) == keys


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agents: {main: {max_leases: 5}, worker: {}}", ["agent main changed", "agent worker added"]),
        ("providers: {openai: {base_url: 'http://127.0.0.1:1'}}", ["provider openai changed"]),
        ("sources: [env: {}]", None),
        ("required: [openai]", ["required"]),
        ("auth: {order: {openai: ['openai:a']}, cooldowns: {billing_max: 2h}}", ["auth.order", "auth.cooldowns"]),
        ("profiles: {'openai:a': {mode: api_key}}", ["profiles"]),
        ("env: {vars: {SOME_API_KEY: sk-ant-api03-hidden}}", ["env"]),
        ("# only a comment", []),
    ],
)
def test_the_rest_is_told_without_values(tmp_path: Path, text: str, said: list[str] | None) -> None:
    """C15: names alone, so no secret; equal configurations differ in nothing."""
    before, after = configured(tmp_path, ""), configured(tmp_path, text)
    told = changes(before, after)
    assert told == said or (said is None and told != [])
    assert "hidden" not in " ".join(told)
    assert changes(after, configured(tmp_path, text)) == []


def test_a_revision_is_what_the_file_holds(tmp_path: Path) -> None:
    """C15: so that a broker knows that its configuration is older than the file."""
    config = configured(tmp_path, "required: []")
    assert revision_of(tmp_path / "equabot.yaml") == config.revision
    (tmp_path / "equabot.yaml").write_text("required: [] # changed")
    assert revision_of(tmp_path / "equabot.yaml") != config.revision
    assert revision_of(tmp_path / "gone") == ""
