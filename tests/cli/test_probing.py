"""`models status --probe` against a provider on loopback, with a broker and without one."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.host import KEY, TOKEN, Host
from tests.fakes.upstream import Answer, Upstream

ONLY = "This credential is only authorized for use with Claude Code and cannot be used for other API requests."


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def ready(host: Host, upstream: Upstream) -> Host:
    """A host with a key in `.env` and a token in its store, both for the provider on loopback."""
    host.write_config(f"providers: {{anthropic: {{base_url: '{upstream.url}'}}, brave: {{base_url: '{upstream.url}'}}}}\n")
    (host.home / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    token = {"type": "token", "provider": "anthropic", "token": TOKEN}
    host.write_store({"version": 1, "profiles": {"anthropic:manual": token}})
    return host


def probes(host: Host, *arguments: str) -> dict[str, Any]:
    done = host.run("models", "status", "--probe", "--json", *arguments)
    return {one["profileId"]: one for one in json.loads(done.out)["auth"]["probes"]}


def test_each_is_tried_in_its_own_form(ready: Host, upstream: Upstream) -> None:
    """A key in its header, a token in the other; the answer of each under its own name. Nothing remembers it."""
    upstream.accepted = {KEY}
    before = ready.store()
    found = probes(ready)
    assert found["anthropic:dotenv"] == {
        "profileId": "anthropic:dotenv",
        "provider": "anthropic",
        "model": "claude-haiku-4-5",
        "status": "ok",
        "reason": None,
    }
    assert (found["anthropic:manual"]["status"], found["anthropic:manual"]["reason"]) == ("auth", "the provider refused it")
    sent = {tuple(sorted(received.keys().items())) for received in upstream.received}
    assert sent == {(("x-api-key", KEY),), (("authorization", f"Bearer {TOKEN}"),)}
    assert all(json.loads(received.body)["max_tokens"] == 8 for received in upstream.received)
    assert ready.store() == before, "it sets no cooldown"


def test_users_and_scripts_get_the_results_too(ready: Host) -> None:
    """A section behind the report, and lines behind the lines."""
    text = ready.run("models", "status", "--probe").out
    assert "Probes\nanthropic:dotenv\tok" in text
    assert "\nanthropic:manual\tok\tclaude-haiku-4-5" in text
    assert "probe\tanthropic:dotenv\tok\n" in ready.run("models", "status", "--probe", "--plain").out
    assert KEY[:20] not in text


def test_a_credential_for_claude_code_alone_is_reported_with_advice(ready: Host, upstream: Upstream) -> None:
    """As on the seed's page; and `--check` is then 1."""
    (ready.home / ".env").unlink()
    upstream.answers = [Answer(400, body={"error": {"message": ONLY}})] * 2
    done = ready.run("models", "status", "--probe", "--check")
    assert "rejected: it is only authorized for use with Claude Code; use an Anthropic API key instead" in done.out
    assert done.code == 1
    assert ready.run("models", "status", "--check").code == 0


def test_what_cannot_be_tried_says_why(ready: Host, upstream: Upstream) -> None:
    """No small call is known, or there is no credential to test."""
    (ready.home / ".env").write_text("BRAVE_API_KEY=brave-key\nANTHROPIC_API_KEY=changeme\n")
    found = probes(ready)
    assert found["brave:dotenv"]["status"] == "no_model"
    assert found["anthropic:dotenv"]["status"] == "unknown"
    assert "not tried: " in found["anthropic:dotenv"]["reason"]
    assert found["anthropic:manual"]["status"] == "ok"


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ("models: {default: anthropic/claude-opus-4-5}", "claude-opus-4-5"),
        ("models: {default: openai/gpt-5, aliases: {s: claude/claude-sonnet-4-5}}", "claude-sonnet-4-5"),
    ],
)
def test_a_model_in_use_is_asked(ready: Host, upstream: Upstream, config: str, model: str) -> None:
    """The credential may be good for that one alone. Another may be named for this."""
    ready.write_config(ready.config + config + "\n")
    assert probes(ready)["anthropic:manual"]["model"] == model
    ready.write_config(ready.config.replace("{anthropic: {", "{anthropic: {probe_model: small, "))
    assert probes(ready)["anthropic:manual"]["model"] == "small"
    assert json.loads(upstream.received[-1].body)["model"] == "small"
