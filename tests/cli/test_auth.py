"""What is in the store, and out of it."""

import json
import time

import pytest

from tests.fakes.host import KEY, TOKEN, Host

NEXT_WEEK = int((time.time() + 7 * 86400 + 600) * 1000)
STORE = {
    "version": 1,
    "profiles": {
        "anthropic:manual": {"type": "token", "provider": "anthropic", "token": TOKEN, "expires": NEXT_WEEK},
        "openai:default": {"type": "api_key", "provider": "openai", "key": "sk-proj-1234", "email": "me@example.com"},
        "anthropic:odd": {"type": "api_key", "provider": "anthropic", "key": "changeme"},
        "nonsense": 1,
    },
    "order": {"anthropic": ["anthropic:manual", "anthropic:odd"]},
    "usageStats": {"anthropic:manual": {"lastUsed": 1}},
    "lastGood": {"anthropic": "anthropic:manual"},
}


def test_list_shows_the_profiles_and_masks_them(host: Host) -> None:
    """At most the first and last four characters, and only of long ids; ids that are not profiles have their own mark."""
    host.write_store(STORE)
    done = host.run("models", "auth", "list")
    assert done.code == 0
    assert done.out.splitlines()[:2] == [
        f"anthropic:manual\ttoken\tsk-a…{TOKEN[-4:]} expires in 7d",
        "openai:default\tapi_key\t…\tme@example.com",
    ]
    assert "is a placeholder" in done.out
    assert "nonsense" in done.err
    only = json.loads(host.run("models", "auth", "list", "--json", "--provider", "openai").out)
    assert only == {
        "agentId": "main",
        "authStorePath": str(host.store_path()),
        "profiles": [
            {
                "profileId": "openai:default",
                "provider": "openai",
                "type": "api_key",
                "label": "…",
                "fault": None,
                "expiresAt": None,
                "email": "me@example.com",
                "agent": "main",
            }
        ],
    }


def test_an_agent_reads_through_to_main(host: Host) -> None:
    """Its own profile goes before main's of the same id."""
    host.write_config("agents: {main: {}, coder: {providers: ['*']}}\n")
    host.write_store(STORE)
    own = {"anthropic:manual": {"type": "api_key", "provider": "anthropic", "key": KEY}}
    host.write_store({"version": 1, "profiles": own}, "coder")
    lines = host.run("models", "auth", "list", "--agent", "coder").out.splitlines()
    assert lines[0].startswith("anthropic:manual\tapi_key\t")
    assert lines[1].startswith("openai:default\tapi_key\t")
    assert lines[1].endswith("(agent main)")


def test_remove_takes_it_out_everywhere(host: Host) -> None:
    """Of the store with its use and its place in the order, and of the configuration; the rest stays."""
    host.write_store(STORE)
    host.write_config(
        "auth:\n  profiles:\n    anthropic:manual: {mode: token}\n    # kept\n    openai:default: {mode: api_key}\n"
    )
    done = host.run("models", "auth", "remove", "claude:manual")
    assert (done.code, done.err) == (0, "")
    left = host.store()
    assert list(left["profiles"]) == ["openai:default", "anthropic:odd", "nonsense"]
    assert left["order"] == {"anthropic": ["anthropic:odd"]}
    assert (left["usageStats"], left["lastGood"]) == ({}, {})
    assert host.config == "auth:\n  profiles:\n    # kept\n    openai:default: {mode: api_key}\n"


def test_what_is_not_a_profile_can_be_removed_too(host: Host) -> None:
    """By the name that it has in the store."""
    host.write_store(STORE)
    assert host.run("models", "auth", "remove", "nonsense").code == 0
    assert "nonsense" not in host.store()["profiles"]


@pytest.mark.parametrize("profile", ["anthropic:env", "openai:none", "nope"])
def test_what_is_not_there_is_1(host: Host, profile: str) -> None:
    """It says where to look; nothing is written."""
    done = host.run("models", "auth", "remove", profile)
    assert (done.code, done.out) == (1, "")
    assert f"{profile} is not in {host.store_path()}: `equabot models auth list`" in done.err
    assert not host.store_path().exists()


def test_mains_profile_is_not_removed_for_another_agent(host: Host) -> None:
    """It would be removed for all agents."""
    host.write_config("agents: {main: {}, coder: {providers: ['*']}}\n")
    host.write_store(STORE)
    done = host.run("models", "auth", "remove", "openai:default", "--agent", "coder")
    assert done.code == 1
    assert "--agent main removes it there" in done.err
    assert "openai:default" in host.store()["profiles"]


def test_a_configured_order_that_still_names_it_is_reported(host: Host) -> None:
    """It is the operator's own."""
    host.write_store(STORE)
    host.write_config("auth: {order: {openai: ['openai:default']}}\n")
    done = host.run("models", "auth", "remove", "openai:default")
    assert done.code == 0
    assert "auth.order" in done.err
    assert "still names openai:default" in done.err
