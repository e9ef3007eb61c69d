"""What becomes a profile, under which name, and what is said of the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override, Texts, ValueLocation, safe_name
from equabot_broker.domain.material import SourceFault, Unit
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from tests.fakes.following import UNSHAPED

RULES = DiscoveryRules(UNSHAPED)
EMPTY = "is empty"


def discover(values: Texts, rules: DiscoveryRules = RULES, *, unit: str = "", name: str = "env") -> Unit:
    return rules.discover(values, kind="env", source="env", unit=unit, name=name, origin=lambda key: f"variable {key}")


def found(values: Texts, rules: DiscoveryRules = RULES) -> dict[str, str]:
    """Profile ids and their secrets, `!` for those that have none."""
    return {p.id: p.secret.reveal() if p.secret else "!" for p in discover(values, rules).profiles}


def test_a_value_makes_a_whole_profile() -> None:
    """Everything about it is known: where from, of which mode, clean."""
    unit = discover({"HOME": "/root", "OPENAI_API_KEY": ' "k-1" \n'}, unit="team", name="team")
    assert unit == Unit(
        "team",
        (
            Profile(
                id="openai:team",
                provider="openai",
                mode=Mode.API_KEY,
                source="env",
                unit="team",
                origin="variable OPENAI_API_KEY",
                secret=SecretValue("k-1"),
            ),
        ),
    )


def test_the_first_usable_name_wins() -> None:
    """A provider has one profile a bundle, of the first name that holds something usable."""
    unit = discover({"ANTHROPIC_API_KEY": "key", "ANTHROPIC_AUTH_TOKEN": "token"})
    assert [(p.id, p.mode, p.origin) for p in unit.profiles] == [("anthropic:env", Mode.TOKEN, "variable ANTHROPIC_AUTH_TOKEN")]
    assert unit.faults == ()


def test_an_unusable_value_beside_a_usable_one_is_a_fault() -> None:
    """It hides nothing, but somebody meant something by it."""
    unit = discover({"ANTHROPIC_OAUTH_TOKEN": "changeme", "ANTHROPIC_API_KEY": "key"})
    assert [(p.id, p.mode) for p in unit.profiles] == [("anthropic:env", Mode.API_KEY)]
    assert unit.faults == (
        SourceFault(
            "variable ANTHROPIC_OAUTH_TOKEN",
            "variable ANTHROPIC_OAUTH_TOKEN is a placeholder: put the real value there",
        ),
    )


def test_where_nothing_is_usable_the_first_makes_an_invalid_profile() -> None:
    """Absent and broken are not the same: health and status say which."""
    unit = discover({"GOOGLE_API_KEY": "", "GEMINI_API_KEY": "${KEY}"})
    (profile,) = unit.profiles
    assert (profile.id, profile.secret) == ("google:env", None)
    assert profile.fault == "variable GEMINI_API_KEY is a placeholder: put the real value there"
    assert unit.faults == (SourceFault("variable GOOGLE_API_KEY", "variable GOOGLE_API_KEY is empty"),)


def test_a_token_in_the_variable_for_keys_is_refused_with_the_way_out() -> None:
    """The variable's name decides the mode."""
    (profile,) = discover({"ANTHROPIC_API_KEY": "sk-ant-oat01-" + "x9" * 40}).profiles
    assert profile.secret is None
    assert profile.fault == (
        "variable ANTHROPIC_API_KEY is an OAuth token, not an API key: "
        "put it in ANTHROPIC_OAUTH_TOKEN, or give its profile mode: token"
    )


def test_lists_and_suffixes_make_profiles_of_their_own() -> None:
    """Numbered by their place, named by their suffix; of equal values one is enough."""
    values = {
        "OPENAI_API_KEY": "a",
        "OPENAI_API_KEYS": "a, b;c b",
        "OPENAI_API_KEY_WORK": "d",
        "OPENAI_API_KEY_OLD_ONE": "changeme",
        "OPENAI_API_KEY_AGAIN": "a",
    }
    assert found(values) == {
        "openai:env": "a",
        "openai:env-work": "d",
        "openai:env-old_one": "!",
        "openai:env-keys-2": "b",
        "openai:env-keys-3": "c",
    }
    assert found({"GEMINI_API_KEYS": "a", "GOOGLE_API_KEYS": "b"}) == {"google:env-keys-1": "a", "google:env-keys-2": "b"}


def test_a_list_that_is_none_is_a_fault() -> None:
    """There is no profile to blame."""
    unit = discover({"OPENAI_API_KEYS": b"\xff\xfe"})
    assert unit == Unit(
        "", (), (SourceFault("variable OPENAI_API_KEYS", "variable OPENAI_API_KEYS is binary, not UTF-8 text"),)
    )


@pytest.mark.parametrize("name", ["OPENAI_API_KEY_FILE", "OPENAI_API_KEY_PATH", "ANTHROPIC_API_KEY_HELPER"])
def test_a_name_that_says_where_the_key_is_holds_none(name: str) -> None:
    """`_FILE` is a convention for a path: it must not be served as a key."""
    assert found({name: "/run/secrets/openai"}) == {}
    assert not RULES.wants(name, kind="env")


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY_", "OPENAI_API_KEY_é", "OPENAI_API_KEY_a\n", "OPENAI_API_KEY_a\udcff", "OPENAI_API_KEY_a\x1b"]
)
def test_a_suffix_that_cannot_be_shown_is_none(name: str) -> None:
    """It would stand in logs and in the profile's id."""
    assert found({name: "a"}) == {}


def test_what_is_worth_reading() -> None:
    """Names that could make a profile, and no others."""
    for name in ("OPENAI_API_KEY", "OPENAI_API_KEYS", "OPENAI_API_KEY_2", "HF_TOKEN"):
        assert RULES.wants(name, kind="mounted", unit="any")
    for name in ("PATH", "SOME_API_KEY", "SOME_API_KEY_2", "tls.crt", "HF_TOKEN_2", ""):
        assert not RULES.wants(name, kind="mounted", unit="any")


def test_a_bound_key_makes_the_configured_profile() -> None:
    """Instead of the one it would make by itself; with any name, known or not; in its unit and no other."""
    bindings = {
        ValueLocation("env", "", "OPENAI_API_KEY"): "openai:prod",
        ValueLocation("env", "", "MY_CLAUDE"): "anthropic:mine",
        ValueLocation("env", "", "ANTHROPIC_AUTH_TOKEN"): "anthropic:token",
        ValueLocation("env", "other", "GROQ_API_KEY"): "groq:other",
        ValueLocation("dotenv", "", "XAI_API_KEY"): "xai:file",
    }
    rules = DiscoveryRules(UNSHAPED, bindings, {"anthropic:mine": Override(mode=Mode.TOKEN, expires_at=99.0)})
    values = {
        "OPENAI_API_KEY": "a",
        "MY_CLAUDE": "b",
        "ANTHROPIC_AUTH_TOKEN": "c",
        "GROQ_API_KEY": "d",
        "XAI_API_KEY": "e",
    }
    assert {(p.id, p.mode, p.expires_at) for p in discover(values, rules).profiles} == {
        ("openai:prod", Mode.API_KEY, None),
        ("anthropic:mine", Mode.TOKEN, 99.0),
        ("anthropic:token", Mode.TOKEN, None),
        ("groq:env", Mode.API_KEY, None),
        ("xai:env", Mode.API_KEY, None),
    }
    assert rules.wants("MY_CLAUDE", kind="env")
    assert not rules.wants("MY_CLAUDE", kind="dotenv")


def test_a_binding_for_an_unknown_provider_is_a_fault() -> None:
    """Configuration refuses it earlier; if it does not, nothing is served and something is said."""
    unit = discover({"X": "a"}, DiscoveryRules(UNSHAPED, {ValueLocation("env", "", "X"): "nobody:x"}))
    assert unit.profiles == ()
    assert "nobody:x" in unit.faults[0].message


def test_the_configuration_says_what_a_discovered_profile_is() -> None:
    """Mode and expiry of a profile, whatever variable it came from."""
    token = "sk-ant-oat01-" + "x9" * 40
    rules = DiscoveryRules(UNSHAPED, overrides={"anthropic:env": Override(mode=Mode.TOKEN, expires_at=5.0)})
    (profile,) = discover({"ANTHROPIC_API_KEY": token}, rules).profiles
    assert (profile.mode, profile.expires_at, profile.secret) == (Mode.TOKEN, 5.0, SecretValue(token))


def test_names_are_made_safe() -> None:
    """A directory may be called anything; a profile id may not."""
    assert [safe_name(name) for name in ("llm", "a b/c", "..x", "ünï", "me@x.org", "---")] == [
        "llm",
        "a-b-c",
        "x",
        "n-",
        "me@x.org",
        "",
    ]
    (profile,) = discover({"OPENAI_API_KEY": "a"}, name="…").profiles
    assert profile.id == "openai:env"


names = st.one_of(
    st.sampled_from(["OPENAI_API_KEY", "OPENAI_API_KEYS", "OPENAI_API_KEY_A", "ANTHROPIC_API_KEY", "HF_TOKEN", "PATH"]),
    st.text(max_size=12),
)


@given(st.dictionaries(names, st.one_of(st.text(max_size=20), st.binary(max_size=20)), max_size=8))
def test_any_bundle_makes_sound_profiles(values: dict[str, str | bytes]) -> None:
    """Ids are unique, a profile has a secret or says why not, and only a wanted key is looked at."""
    unit = discover(values)
    ids = [profile.id for profile in unit.profiles]
    assert len(ids) == len(set(ids))
    assert all((profile.secret is None) == bool(profile.fault) for profile in unit.profiles)
    assert unit == discover({key: text for key, text in values.items() if RULES.wants(key, kind="env")})


def test_a_list_of_thousands_and_a_bundle_of_thousands() -> None:
    """Neither costs more than its length: this would take minutes otherwise."""
    many = {f"NAME_{n}": "x" for n in range(100_000)} | {f"UNKNOWN_API_KEY_{n}": "x" for n in range(10_000)}
    assert found(many) == {}
    assert len(found({f"OPENAI_API_KEY_{n}": f"{n}" for n in range(10_000)})) == 10_000


def test_a_list_of_more_than_a_hundred_keys_is_refused_whole() -> None:
    """S24: a value of 64 KiB could make thirty thousand profiles."""
    assert len(found({"OPENAI_API_KEYS": " ".join(f"{n}" for n in range(100))})) == 100
    unit = discover({"OPENAI_API_KEYS": "a," * 32_000})
    why = "variable OPENAI_API_KEYS lists more than 100 keys: spread them over several variables"
    assert unit.faults == (SourceFault("variable OPENAI_API_KEYS", why),)
    assert unit.profiles == ()


@pytest.mark.parametrize("name", ["anthropic_api_key", "anthropic-api-key", "ANTHROPIC-API-KEY", "Anthropic_Api_Key"])
@pytest.mark.parametrize("kind", ["mounted", "kubernetes"])
def test_names_of_files_may_be_spelled_as_docker_and_azure_spell_them(name: str, kind: str) -> None:
    """P16: Docker's secrets are in lower case, Azure's vault has dashes. A variable's name is as it is."""
    rules = DiscoveryRules(UNSHAPED)
    assert rules.wants(name, kind=kind)
    assert not rules.wants(name, kind="env")
    assert not rules.wants(name, kind="dotenv")
    unit = rules.discover({name: "lower"}, kind=kind, source="s", unit="", name="m", origin=lambda key: f"/m/{key}")
    assert [(profile.id, profile.origin, profile.secret) for profile in unit.profiles] == [
        ("anthropic:m", f"/m/{name}", SecretValue("lower"))
    ]


def test_the_name_itself_goes_before_another_spelling() -> None:
    """P16: where both are there, the variable's own name is meant."""
    values = {"anthropic_api_key": "lower", "ANTHROPIC_API_KEY": "upper"}
    unit = DiscoveryRules(UNSHAPED).discover(values, kind="mounted", source="s", unit="", name="m", origin=str)
    assert [profile.secret for profile in unit.profiles] == [SecretValue("upper")]
