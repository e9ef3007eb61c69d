"""A mounted directory's or a Secret's contents: values by name, and whole files of logins."""

import json
from typing import Any

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.material import Unit
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.formats.bundles import bundle_unit
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.providers import BUILT_IN

ACCESS = "sk-ant-oat01-" + "a" * 95
LOGIN = json.dumps({"claudeAiOauth": {"accessToken": ACCESS, "refreshToken": "sk-ant-ort01-r", "expiresAt": 1.9e12}})
STORE = json.dumps({
    "version": 1,
    "profiles": {
        "openai:default": {"type": "api_key", "key": "k"},
        "anthropic:x": {"type": "oauth", "access": ACCESS, "refresh": "r"},
    },
    "usageStats": {"openai:default": {"lastUsed": 5}},
    "order": {"openai": ["openai:default"]},
})  # fmt: skip


FILES = {"store": "auth-profiles.json", "login": ".credentials.json"}


def read(name: str = "", rules: DiscoveryRules | None = None, **values: str | bytes) -> Unit:
    return bundle_unit(
        {FILES.get(key, key): value for key, value in values.items()},
        rules=rules or DiscoveryRules(BUILT_IN, foreign_logins=frozenset()), kind="mounted", source="s", unit=name, name=name,
        origin=lambda key: f"/d/{key}",
    )  # fmt: skip


def ids(unit: Unit) -> list[str]:
    return [profile.id for profile in unit.profiles]


def test_values_a_store_and_a_login_are_one_unit() -> None:
    """All of them serve; what a store remembers of use stays in that store."""
    unit = read(OPENAI_API_KEY="k", store=STORE, login=LOGIN.encode())
    assert ids(unit) == ["openai:mounted", "openai:default", "anthropic:x", "anthropic:claude-cli"]
    assert (unit.owner, dict(unit.usage), dict(unit.orders), unit.faults) == ("", {}, {}, ())
    assert [profile.origin for profile in unit.profiles] == [
        "/d/OPENAI_API_KEY",
        "/d/auth-profiles.json openai:default",
        "/d/auth-profiles.json anthropic:x",
        "/d/.credentials.json",
    ]


def test_no_refresh_token_in_it_is_redeemed() -> None:
    """What it gives back could not be stored there."""
    assert {profile.mode for profile in read(store=STORE, login=LOGIN).profiles} == {Mode.API_KEY, Mode.OAUTH}
    assert all(profile.refresh is None for profile in read(store=STORE, login=LOGIN).profiles)


@pytest.mark.parametrize(
    ("name", "more", "profile_id"),
    [
        ("", {}, "anthropic:claude-cli"),
        ("team one", {}, "anthropic:team-one"),
        ("___", {}, "anthropic:claude-cli"),
        ("team", {"ANTHROPIC_API_KEY": "sk-ant-api03-x"}, "anthropic:claude-cli"),
    ],
)
def test_a_login_is_called_after_its_bundle(name: str, more: dict[str, Any], profile_id: str) -> None:
    """Unless that has no name, or another credential of it has that name already."""
    assert ids(read(name, login=LOGIN, **more))[-1] == profile_id


@pytest.mark.parametrize("text", ["", "{", "[]", b"\xff", "\udcff"])
@pytest.mark.parametrize("file", ["auth-profiles.json", ".credentials.json"])
def test_a_file_that_cannot_be_understood_fails_the_bundle(file: str, text: str | bytes) -> None:
    """It says which one; half a bundle would take the other half's profiles away."""
    values: dict[str, Any] = {"OPENAI_API_KEY": "k", file: text}
    with pytest.raises(Malformed, match=rf"^/d/{file} is not usable: it ") as raised:
        read(**values)
    assert raised.value.__context__ is None


def test_without_files_it_is_what_its_values_make() -> None:
    """Whatever else is in it."""
    rules = DiscoveryRules(BUILT_IN)
    texts = {"OPENAI_API_KEY": "k", "README": "x"}
    found = rules.discover(texts, kind="mounted", source="s", unit="t", name="t", origin=lambda key: f"/d/{key}")
    assert read("t", rules, **texts) == found
    assert all(isinstance(profile, Profile) for profile in found.profiles)
