"""Names of credentials that no provider has."""

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.discovery.unknown_names import misnamed, notes, unknown_names
from equabot_broker.providers import BUILT_IN


def said(*keys: str) -> list[str]:
    names = unknown_names(keys, DiscoveryRules(BUILT_IN), kind="dotenv")
    return [note.message for note in notes(names, BUILT_IN, where=lambda key: f"f {key}")]


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("ANTROPIC_API_KEY", "did you mean ANTHROPIC_API_KEY (anthropic)?"),
        ("OPENAPI_API_KEY", "did you mean OPENAI_API_KEY (openai)?"),
        ("ACME_CLOUD_API_KEY", "providers: {acme-cloud: {base_url: https://…, env: {ACME_CLOUD_API_KEY: api_key}}}"),
        ("ACME_TOKEN", "providers: {acme: {base_url: https://…, env: {ACME_TOKEN: token}}}"),
    ],
)
def test_what_no_provider_has_is_said_with_the_nearest_or_how_to_declare_one(key: str, advice: str) -> None:
    """C13: by name; the value is not looked at."""
    (note,) = said(key)
    assert note.startswith(f"f {key} is not used: no provider has a variable of this name")
    assert advice in note


@pytest.mark.parametrize(
    "key", ["ANTHROPIC_API_KEY", "OPENAI_API_KEY_WORK", "PATH", "EDITOR", "API_KEY_FILE", "sk-ant-api03-" + "k" * 90]
)
def test_other_names_are_no_news(key: str) -> None:
    """C13: those that are used, those of no credential, and none that looks like a key itself."""
    assert said(key) == []


def test_of_many_only_the_first_are_said() -> None:
    """C13: a file of ten thousand names does not fill a report."""
    assert len(said(*(f"X{number}_ACME_API_KEY" for number in range(10_000)))) == 20


ANTHROPIC, GROQ = "sk-ant-api03-" + "c4nary" * 15, "gsk_" + "c4nary" * 9


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("ANTHROPIC_KEY", "anything", "did you mean ANTHROPIC_API_KEY (anthropic)?"),
        ("OPENAI_KEY", "anything", "did you mean OPENAI_API_KEY (openai)?"),
        ("GROQ_SECRET_KEY", "anything", "did you mean GROQ_API_KEY (groq)?"),
        ("MY_AI", ANTHROPIC, "its value begins like a credential of anthropic; name it ANTHROPIC_API_KEY"),
        (
            "MY_AI",
            "sk-ant-oat01-" + "c4nary" * 15,
            "its value begins like a credential of anthropic; name it ANTHROPIC_OAUTH_TOKEN",
        ),
        ("TEAM", GROQ, "its value begins like a credential of groq; name it GROQ_API_KEY"),
        ("DB_KEY", "hunter2", ""),
        ("EDITOR", "vim", ""),
        ("ANTHROPIC_API_KEY", ANTHROPIC, ""),
        ("ANTHROPIC_BASE_URL", "https://proxy.example.com/v1", ""),
        ("SHORT", "sk-ant-api03-", ""),
        (ANTHROPIC, "x", ""),
    ],
)
def test_another_word_for_a_variable_and_a_key_under_another_name_are_said(key: str, value: str, advice: str) -> None:
    """C13: without a byte of the value."""
    told = [
        note.message for note in misnamed({key: value}, DiscoveryRules(BUILT_IN), kind="dotenv", where=lambda name: f"f {name}")
    ]
    assert len(told) == bool(advice)
    assert all(f"f {key} is not used: " in said and advice in said and "c4nary" not in said for said in told)
