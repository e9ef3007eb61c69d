"""What is asked of a vendor's facts: header forms, variables, spellings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.provider import BEARER, Catalog, HeaderForm, Mode, Provider

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
def test_any_other_text_is_nobody(text: str) -> None:
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
