"""One Secret, as the API gives it, in all the ways in which people fill one."""

import base64
import json
from typing import Any

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override, ValueLocation
from equabot_broker.domain.material import Unit
from equabot_broker.domain.provider import Mode
from equabot_broker.sources._secret import read_secret
from tests.fakes.following import UNSHAPED, secrets

KEY = "sk-ant-api03-" + "A1" * 45
TOKEN = "sk-ant-oat01-" + "A1" * 45
OPENAI = "sk-proj-" + "A1" * 30


def thing(data: dict[str, str | bytes], **annotations: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(v.encode() if isinstance(v, str) else v).decode() for key, v in data.items()}
    told = {f"equabot.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"metadata": {"name": "llm", "namespace": "apps", "annotations": told}, "type": "Opaque", "data": encoded}


def read(data: dict[str, str | bytes], rules: DiscoveryRules | None = None, /, **annotations: str) -> Unit:
    found = read_secret(thing(data, **annotations), rules=rules or DiscoveryRules(UNSHAPED), source="kubernetes")
    assert isinstance(found, Unit), found
    return found


def failed(raw: dict[str, Any]) -> str:
    found = read_secret(raw, rules=DiscoveryRules(UNSHAPED), source="kubernetes")
    assert isinstance(found, str)
    return found


def faults(unit: Unit) -> str:
    return "; ".join(fault.message for fault in unit.faults)


def test_a_secret_of_too_many_keys_is_refused_whole() -> None:
    """S24: a MiB of short names would make fifty thousand profiles."""
    assert len(read({f"OPENAI_API_KEY_{n}": f"k{n}" for n in range(1000)}).profiles) == 1000
    assert "Secret apps/llm holds more than 1,000 keys" in failed(thing({f"OPENAI_API_KEY_{n}": "" for n in range(1001)}))
    assert "holds more than 1,000 keys" in failed(thing({f"k{n}": "" for n in range(1001)}, provider="openai"))


# -- without annotations --------------------------------------------------------------------------------------------------


def test_a_key_that_no_provider_has_is_said() -> None:
    """C13: in a Secret and in the `.env` in it; not where the Secret says whose it is."""
    unit = read({"ANTHROPIC_API_KEY": KEY, "ACME_TOKEN": "t", ".env": f"ANTROPIC_API_KEY={KEY}\n", "username": "me"})
    assert [note.where for note in unit.notes] == ["Secret apps/llm ACME_TOKEN", "Secret apps/llm ANTROPIC_API_KEY"]
    assert unit.faults == ()
    assert read({"ACME_TOKEN": OPENAI}, provider="openai").notes == ()


def test_keys_are_named_as_environment_variables() -> None:
    """Profiles are named after the Secret; what is named otherwise is not looked at, and nobody hears of it."""
    unit = read({"ANTHROPIC_API_KEY": f" {KEY}\n", "OPENAI_API_KEY_TEAM": OPENAI, "tls.key": b"\xff\x00", "username": "me"})
    assert secrets(unit) == {"anthropic:llm": KEY, "openai:llm-team": OPENAI}
    assert [profile.origin for profile in unit.profiles] == [
        "Secret apps/llm ANTHROPIC_API_KEY",
        "Secret apps/llm OPENAI_API_KEY_TEAM",
    ]
    assert unit.faults == ()


def test_whole_files_are_read() -> None:
    """`.env`, beneath the keys that stand beside it; `auth-profiles.json` and `.credentials.json` as in a directory."""
    store = json.dumps({"version": 1, "profiles": {"openai:x": {"type": "api_key", "key": OPENAI}}})
    login = json.dumps({"claudeAiOauth": {"accessToken": TOKEN, "refreshToken": "r", "expiresAt": 1.9e12}})
    env = f"ANTHROPIC_API_KEY={KEY}\nGROQ_API_KEY=hidden\n"
    unit = read({".env": env, "GROQ_API_KEY": "gsk_shown", "auth-profiles.json": store, ".credentials.json": login})
    assert secrets(unit) == {"anthropic:llm": KEY, "groq:llm": "gsk_shown", "openai:x": OPENAI, "anthropic:claude-cli": TOKEN}
    assert unit.profiles[0].origin == "Secret apps/llm .env ANTHROPIC_API_KEY"


def test_a_key_that_is_called_like_a_credential_is_not_named() -> None:
    """Somebody has written it on the wrong side of the colon."""
    unit = read({KEY: "${NAME}"}, provider="anthropic")
    assert unit.profiles == ()
    why = "Secret apps/llm (not shown: it looks like a key) has a name that looks like a key, so it is not used"
    assert faults(unit) == f"{why}: rename it, and replace that key"


@pytest.mark.parametrize("data", [{}, {"username": "me", "password": "secret"}, {".dockerconfigjson": "{}"}])
def test_a_secret_without_a_credential_says_so(data: dict[str, str | bytes]) -> None:
    """Whatever its type: it was chosen, so something was meant."""
    unit = read(data)
    assert unit.profiles == ()
    assert faults(unit).startswith("Secret apps/llm holds no credential: name a key like the provider's environment variable")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"\xff\xfe\x00", "is binary"),
        (b"x" * 2**20, "is longer than 64 KiB"),
        ("", "is empty"),
        ("changeme", "is a placeholder"),
        (OPENAI, "is a credential of openai, not of anthropic"),
    ],
)
def test_a_value_of_no_use_makes_an_invalid_profile(value: str | bytes, why: str) -> None:
    """Named with its key, never with its bytes; the others serve."""
    unit = read({"ANTHROPIC_API_KEY": value, "GROQ_API_KEY": "gsk_good"})
    assert secrets(unit) == {"anthropic:llm": "!", "groq:llm": "gsk_good"}
    assert why in unit.profiles[0].fault or "another provider" in unit.profiles[0].fault
    assert unit.profiles[0].fault.startswith("Secret apps/llm ANTHROPIC_API_KEY ")


@pytest.mark.parametrize(
    "raw",
    [
        {"metadata": {"name": "llm", "namespace": "apps"}, "data": {"ANTHROPIC_API_KEY": "no base64!"}},
        {"metadata": {"name": "llm", "namespace": "apps"}, "data": ["x"]},
        {"metadata": {"name": "llm", "namespace": "apps"}, "data": {"ANTHROPIC_API_KEY": 5}},
        {"metadata": {"name": "llm", "namespace": "apps", "annotations": {"equabot.dev/mode": 1}}},
        thing({"auth-profiles.json": "{"}),
        thing({".env": b"\0\1\2"}),
        thing({"ANTHROPIC_API_KEY": KEY}, expires_at="soon"),
    ],
)
def test_what_cannot_be_understood_fails_as_a_whole(raw: dict[str, Any]) -> None:
    """With its name: what it held before is served on."""
    assert failed(raw).startswith("Secret apps/llm ")


def test_a_configured_key_needs_no_name() -> None:
    """Whatever annotations say."""
    rules = DiscoveryRules(UNSHAPED, bindings={ValueLocation("kubernetes", "llm", "odd"): "openai:prod"})
    assert secrets(read({"odd": OPENAI, "other": "x"}, rules)) == {"openai:prod": OPENAI}
    both = read({"odd": OPENAI, "other": KEY}, rules, provider="anthropic")
    assert secrets(both) == {"openai:prod": OPENAI, "anthropic:llm": KEY}


# -- with annotations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["token", "api-key", "password", "x.y_z"])
def test_a_secret_may_say_whose_its_only_key_is(key: str) -> None:
    """Whatever that is called; whether it is a key or a token, its value tells."""
    for value, mode in ((KEY, Mode.API_KEY), (TOKEN, Mode.TOKEN)):
        unit = read({key: value}, provider="anthropic", profile="prod", expires_at="2027-01-01T00:00:00Z")
        (profile,) = unit.profiles
        assert (profile.id, profile.mode, profile.secret and profile.secret.reveal()) == ("anthropic:prod", mode, value)
        assert (profile.expires_at, profile.origin) == (1798761600.0, f"Secret apps/llm {key}")
        assert unit.faults == ()


def test_a_token_that_looks_like_nothing_is_what_its_key_says() -> None:
    """A key, unless it is called a token."""
    assert [read({key: "opaque"}, provider="anthropic").profiles[0].mode for key in ("token", "x")] == [
        Mode.TOKEN,
        Mode.API_KEY,
    ]


def test_of_several_keys_the_name_decides() -> None:
    """The provider's own names first, then `api-key` and `token`; else nobody guesses."""
    assert secrets(read({"ANTHROPIC_API_KEY": KEY, "note": "x"}, provider="anthropic")) == {"anthropic:llm": KEY}
    assert secrets(read({"api-key": KEY, "token": TOKEN, "note": "x"}, provider="anthropic")) == {"anthropic:llm": KEY}
    assert secrets(read({"username": "x", "token": TOKEN}, provider="anthropic")) == {"anthropic:llm": TOKEN}
    unit = read({"username": "x", "password": KEY}, provider="anthropic")
    assert unit.profiles == ()
    assert "has 2 keys, and none says that it is the credential: call it one of " in faults(unit)


def test_a_name_alone_names_every_provider_s() -> None:
    """The second half of the id."""
    unit = read({"ANTHROPIC_API_KEY": KEY, "OPENAI_API_KEY": OPENAI}, profile="prod")
    assert secrets(unit) == {"anthropic:prod": KEY, "openai:prod": OPENAI}


def test_the_configuration_s_word_goes_first() -> None:
    """What it says of a profile, an annotation does not change."""
    rules = DiscoveryRules(UNSHAPED, overrides={"anthropic:llm": Override(mode=Mode.TOKEN, expires_at=5.0)})
    (profile,) = read({"x": TOKEN}, rules, provider="anthropic", mode="api_key", expires_at="2027-01-01T00:00:00Z").profiles
    assert (profile.mode, profile.expires_at, profile.fault) == (Mode.TOKEN, 5.0, "")


@pytest.mark.parametrize(
    ("data", "annotations", "why"),
    [
        ({"key": KEY}, {"provider": "openai"}, "is a credential of"),
        ({"key": KEY}, {"provider": "anthropic", "mode": "oauth"}, "is an API key, not an OAuth token"),
        ({"key": TOKEN}, {"provider": "anthropic", "mode": "api_key"}, "is an OAuth token, not an API key"),
        ({"ANTHROPIC_API_KEY": TOKEN}, {}, "is an OAuth token, not an API key"),
    ],
)
def test_a_value_that_contradicts_what_is_said_is_invalid(
    data: dict[str, str | bytes], annotations: dict[str, str], why: str
) -> None:
    """As anywhere: nothing is sent where it does not belong."""
    (profile,) = read(data, **annotations).profiles
    assert profile.secret is None
    assert why in profile.fault


def test_a_key_that_is_named_for_another_contradicts_the_annotation() -> None:
    """One of both is a mistake, and nobody knows which."""
    unit = read({"OPENAI_API_KEY": OPENAI, "ANTHROPIC_API_KEY": KEY}, provider="anthropic")
    assert secrets(unit) == {"anthropic:llm": KEY}
    assert "OPENAI_API_KEY is named for openai, but is declared to be anthropic's" in faults(unit)
    unit = read({"OPENAI_API_KEY": OPENAI}, profile="anthropic:prod")
    assert unit.profiles == ()
    assert "is named for openai, but is declared to be anthropic's" in faults(unit)


def test_an_expiry_is_that_of_every_key() -> None:
    """But of a login in a file, which says itself when it ends."""
    login = json.dumps({"claudeAiOauth": {"accessToken": TOKEN, "refreshToken": "r", "expiresAt": 1.9e12}})
    unit = read({"ANTHROPIC_API_KEY": KEY, ".credentials.json": login}, expires_at="2027-01-01T00:00:00Z")
    assert [profile.expires_at for profile in unit.profiles] == [1798761600.0, 1.9e9]
