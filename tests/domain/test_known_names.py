"""Names that are not known: one place says so, which there are, and which one was meant."""

from equabot_broker.domain.known_names import meant, no_agent, no_profile, no_provider


def test_nearest_known_name_is_suggested() -> None:
    """And nothing is guessed where nothing is near."""
    assert meant("antropic", {"anthropic": 1, "openai": 2}) == "; did you mean 'anthropic'?"
    assert meant("zzz", {"anthropic": 1}) == ""
    assert meant("anthropic" * 10_000, (f"p{number}" for number in range(10**9))) == "", "a stranger's name costs little"


def test_messages_list_the_known_names() -> None:
    """F13: agents and profiles are listed, as far as that is short."""
    assert no_agent("mian", ["other", "main"]) == (
        "agent 'mian' is not configured: the configured agents are main, other; did you mean 'main'?"
    )
    assert no_agent("zzz", ["main"]) == "agent 'zzz' is not configured: the configured agents are main"
    assert no_agent("zzz", [f"a{number:02}" for number in range(30)]).endswith("a19 and 10 more")
    assert no_provider("Antropic", ["anthropic"]) == "provider 'Antropic' is unknown; did you mean 'anthropic'?"
    assert no_provider("zzz", ["anthropic"]).endswith("see `equabot models status`, or add it to providers")
    assert no_profile("anthropic:wrok", ["anthropic:work"]) == (
        "profile 'anthropic:wrok' does not exist; profiles of this provider: anthropic:work; did you mean 'anthropic:work'?"
    )
    assert no_profile("anthropic:x", []) == "profile 'anthropic:x' does not exist; profiles of this provider: none"


def test_a_key_in_the_place_of_a_name_is_not_shown() -> None:
    """It is described."""
    key = "sk-ant-api03-" + "c4nary" * 10
    for said in (no_agent(key, ["main"]), no_provider(key, ["anthropic"]), no_profile(key, ["anthropic:env"])):
        assert "c4nary" not in said
