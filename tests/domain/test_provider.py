"""What is asked of a vendor's facts: header forms, variables, spellings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.provider import BEARER, Catalog, HeaderForm, Mode, Provider
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.providers import PROVIDERS

KEY = HeaderForm(name="x-api-key", prefix="")
OAUTH = HeaderForm(extra={"beta": "1"})


def test_a_mode_has_its_own_header_form_or_that_of_keys() -> None:
    """A mode that is not listed is used like `api_key`; a vendor that lists nothing wants a bearer token."""
    provider = Provider(id="p", headers={Mode.API_KEY: KEY, Mode.OAUTH: OAUTH})
    assert [provider.header_form(mode) for mode in Mode] == [KEY, KEY, OAUTH, KEY]
    assert Provider(id="p").header_form(Mode.TOKEN) == BEARER == HeaderForm("Authorization", "Bearer ")


def test_a_mode_has_its_own_variable_or_that_of_keys() -> None:
    """As with headers; where none is known, none."""
    provider = Provider(id="p", sdk_env={Mode.API_KEY: "P_KEY", Mode.TOKEN: "P_TOKEN"})
    assert [provider.sdk_env_name(mode) for mode in Mode] == ["P_KEY", "P_TOKEN", "P_KEY", "P_KEY"]
    assert Provider(id="p").sdk_env_name(Mode.API_KEY) == ""


@pytest.fixture
def catalog() -> Catalog:
    return Catalog({"zai": Provider(id="zai", aliases=("z.ai", "z-ai")), "openai": Provider(id="openai")})


def test_every_spelling_leads_to_the_one_id(catalog: Catalog) -> None:
    """Aliases, capitals and surrounding space."""
    for spelling in ("zai", "z.ai", "Z.AI", " z-ai ", "ZAI"):
        assert catalog.normalise(spelling) == "zai"
        assert catalog.get(spelling) is catalog.providers["zai"]


@given(st.text())
def test_unknown_text_has_no_provider(text: str) -> None:
    """Unknown is None, never a guess and never an error."""
    catalog = Catalog({"zai": Provider(id="zai")})
    known = text.strip().lower() == "zai"
    assert (catalog.normalise(text) == "zai") is known
    assert (catalog.get(text) is not None) is known


def test_a_catalog_does_not_follow_the_mapping_it_was_made_of() -> None:
    """It is data, fixed at start."""
    facts = {"zai": Provider(id="zai")}
    catalog = Catalog(facts)
    facts["other"] = Provider(id="other")
    assert list(catalog.providers) == ["zai"]


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"user-agent": "claude-cli/2.0.14 (external, cli)"}, "claude-code"),
        ({"user-agent": "Claude-CLI/2.0.14 (external, sdk-ts)"}, "claude-code"),
        ({"user-agent": "node", "x-app": "cli"}, "claude-code"),
        ({"anthropic-beta": "oauth-2025-04-20, claude-code-20250219"}, "claude-code"),
        ({"user-agent": "Anthropic/Python 0.75.0"}, ""),
        ({"user-agent": "my-claude-cli/1"}, ""),
        ({"anthropic-beta": "oauth-2025-04-20"}, ""),
        ({}, ""),
    ],
)
def test_a_request_of_claude_code_is_recognised(headers: dict[str, str], client: str) -> None:
    """C5: by its user agent, by its entry in a list of betas, or by the header that programs send which act in its name."""
    assert PROVIDERS["anthropic"].client_of(headers) == client
    assert PROVIDERS["openai"].client_of(headers) == ""


def test_a_program_is_known_by_its_command_or_its_name() -> None:
    """C5: any other one is not known, whatever the vendor."""
    names = ("claude", "claude-code", "Claude", "python", "")
    assert [PROVIDERS["anthropic"].client(name) for name in names] == ["claude-code", "claude-code", "", "", ""]
    assert [PROVIDERS["openai"].client(name) for name in names] == [""] * 5


@pytest.mark.parametrize(
    ("secret", "client"), [("sk-ant-oat01-x", "claude-code"), ("sk-ant-api03-x", ""), ("another", ""), (None, "")]
)
def test_the_tokens_of_a_claude_login_are_for_claude_code(secret: str | None, client: str) -> None:
    """C5: a fact of the vendor's, by prefix."""
    assert PROVIDERS["anthropic"].only_client(None if secret is None else SecretValue(secret)) == client
