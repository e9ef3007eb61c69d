"""Names of credentials that no provider has."""

import pytest

from broker.domain.discovery import Rules
from broker.domain.unknown_names import notes, unknown_names
from broker.providers import BUILT_IN


def said(*keys: str) -> list[str]:
    names = unknown_names(keys, Rules(BUILT_IN), kind="dotenv")
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
