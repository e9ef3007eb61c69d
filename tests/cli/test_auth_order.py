"""An agent's own order, kept in its store."""

import json

import pytest

from tests.fakes.host import KEY, TOKEN, Host

PROFILES = {
    "anthropic:a": {"type": "token", "provider": "anthropic", "token": TOKEN},
    "anthropic:b": {"type": "api_key", "provider": "anthropic", "key": KEY},
    "openai:c": {"type": "api_key", "provider": "openai", "key": "sk-proj-1234"},
}


@pytest.fixture
def stored(host: Host) -> Host:
    """A host whose store has profiles."""
    host.write_store({"version": 1, "profiles": PROFILES})
    return host


def order(host: Host, *arguments: str, provider: str = "anthropic") -> tuple[int, str]:
    done = host.run("models", "auth", "order", *arguments[:1], "--provider", provider, *arguments[1:])
    return done.code, done.out + done.err


def test_it_is_set_shown_and_cleared(stored: Host) -> None:
    """The seed's three commands."""
    assert "Order\tnot set" in order(stored, "get")[1]
    code, told = order(stored, "set", "anthropic:b", "anthropic:a")
    assert (code, "Order\tanthropic:b, anthropic:a" in told) == (0, True)
    assert stored.store() == {"version": 1, "profiles": PROFILES, "order": {"anthropic": ["anthropic:b", "anthropic:a"]}}
    assert order(stored, "get")[1] == told
    assert order(stored, "clear")[0] == 0
    assert "anthropic" not in stored.store().get("order", {})
    assert order(stored, "clear")[0] == 0, "idempotent"


def test_the_order_is_shown_as_json(stored: Host) -> None:
    """As the seed's own command has it: null for none."""
    shown = {
        "agentId": "main",
        "agentDir": str(stored.store_path().parent),
        "provider": "anthropic",
        "authStorePath": str(stored.store_path()),
        "order": None,
    }
    assert json.loads(order(stored, "get", "--json")[1]) == shown
    order(stored, "set", "anthropic:a")
    assert json.loads(order(stored, "get", "--json")[1]) == shown | {"order": ["anthropic:a"]}


def test_each_agent_has_its_own(stored: Host) -> None:
    """`--agent` names it; without, it is main's. An agent may order what it reads from main's store."""
    stored.write_config("agents: {main: {}, coder: {providers: [anthropic]}}\n")
    assert order(stored, "set", "anthropic:b", "--agent", "coder")[0] == 0
    assert stored.store("coder") == {"version": 1, "profiles": {}, "order": {"anthropic": ["anthropic:b"]}}
    assert "order" not in stored.store()
    assert order(stored, "get", "--agent", "nobody")[0] == 64


def test_without_main_the_first_agent_is_meant(stored: Host) -> None:
    """The configured default agent, as the seed has it."""
    stored.write_config("agents: {coder: {providers: [anthropic]}, other: {}}\n")
    assert order(stored, "set", "anthropic:b")[0] == 0
    assert stored.store("coder")["order"] == {"anthropic": ["anthropic:b"]}


def test_what_another_source_holds_may_be_in_it(stored: Host) -> None:
    """`.env` and the environment are no store, but their profiles are tried all the same."""
    (stored.home / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    assert order(stored, "set", "anthropic:dotenv", "anthropic:a")[0] == 0
    assert stored.store()["order"] == {"anthropic": ["anthropic:dotenv", "anthropic:a"]}


@pytest.mark.parametrize(
    ("ids", "code", "told"),
    [
        (["anthropic:nope"], 1, "profile anthropic:nope does not exist; known profiles: anthropic:a, anthropic:b"),
        (["anthropic:a", "openai:c"], 64, "openai:c is not a profile of anthropic: its id begins with anthropic:"),
        (["manual"], 64, "write provider:name"),
        (["anthropic:a", "anthropic:a"], 64, "named twice"),
        ([], 64, "PROFILE_ID"),
    ],
)
def test_an_order_that_cannot_be_is_refused(stored: Host, ids: list[str], code: int, told: str) -> None:
    """Unknown, another provider's, no id: each with what would be right; the order stays as it was."""
    order(stored, "set", "anthropic:a")
    answer = order(stored, "set", *ids)
    assert answer[0] == code
    assert told in answer[1]
    assert stored.store()["order"] == {"anthropic": ["anthropic:a"]}


def test_another_spelling_is_one_provider(stored: Host) -> None:
    """A store of another program may have the order under it; setting it leaves only one."""
    stored.write_store({"version": 1, "profiles": PROFILES, "order": {"claude": ["anthropic:a"], "openai": ["openai:c"]}})
    assert "Order\tanthropic:a\n" in order(stored, "get", provider="anthropic")[1]
    assert order(stored, "set", "claude:b", provider="Claude")[0] == 0
    assert stored.store()["order"] == {"openai": ["openai:c"], "anthropic": ["anthropic:b"]}


def test_the_configured_order_is_shown_too(stored: Host) -> None:
    """An agent's own order wins."""
    stored.write_config("auth: {order: {anthropic: ['anthropic:a']}}\n")
    assert "Configured\tanthropic:a\n" in order(stored, "get")[1]
    order(stored, "set", "anthropic:b")
    assert "Configured\tanthropic:a (not used)\n" in order(stored, "get")[1]
