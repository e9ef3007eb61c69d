"""A store's entries as profiles and orders: what is understood, what is said of the rest, and that the rest is left alone."""

from typing import Any

import pytest

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.material import Unit
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import AuthDocument, fingerprint
from equabot_broker.formats.auth_entries import entry_ids, instant, store_unit, with_order_of
from tests.fakes.following import UNSHAPED

RULES = DiscoveryRules(UNSHAPED)
API_KEY = "sk-ant-api03-" + "k3y" * 10
TOKEN = "sk-ant-oat01-" + "t0k" * 30
REFRESH = "sk-ant-ort01-" + "r3f" * 30
AT = 1_900_000_000.0


def read(profiles: dict[str, Any], *, owner: str = "main", rules: DiscoveryRules = RULES, **rest: Any) -> Unit:
    document = AuthDocument({"version": 1, "profiles": profiles, **rest})
    return store_unit(document, rules=rules, source="profile_store", name=owner, origin="/s.json", owner=owner)


def only(entry: dict[str, Any], profile_id: str = "anthropic:x", **more: Any) -> Profile:
    unit = read({profile_id: entry}, **more)
    assert len(unit.profiles) == 1
    return unit.profiles[0]


def messages(unit: Unit) -> list[str]:
    return [fault.message for fault in unit.faults]


def test_the_three_types() -> None:
    """All their fields, instants in seconds."""
    unit = read({
        "anthropic:default": {"type": "api_key", "provider": "anthropic", "key": f" {API_KEY}\n", "expires": 5},
        "anthropic:manual": {"type": "token", "provider": "anthropic", "token": TOKEN, "expires": AT * 1000},
        "anthropic:me@x.org": {
            "type": "oauth", "provider": "anthropic", "access": TOKEN, "refresh": REFRESH, "expires": AT * 1000 + 1,
            "clientId": "c", "accountId": "acc", "email": "me@x.org", "issuedAt": AT * 1000 - 5000,
        },
    })  # fmt: skip
    place: dict[str, Any] = {"provider": "anthropic", "source": "profile_store", "unit": "main", "agent": ""}
    origin = "/s.json anthropic:"
    secret = SecretValue(TOKEN)
    assert unit.profiles == (
        Profile(id="anthropic:default", mode=Mode.API_KEY, origin=f"{origin}default", secret=SecretValue(API_KEY), **place),
        Profile(id="anthropic:manual", mode=Mode.TOKEN, origin=f"{origin}manual", secret=secret, expires_at=AT, **place),
        Profile(
            id="anthropic:me@x.org", mode=Mode.OAUTH, origin=f"{origin}me@x.org", secret=secret, expires_at=AT + 0.001,
            refresh=SecretValue(REFRESH), client_id="c", account="acc", email="me@x.org", issued_at=AT - 5, **place,
        ),
    )  # fmt: skip
    assert unit.faults == ()


@pytest.mark.parametrize(("owner", "agent"), [("main", ""), ("coder", "coder"), ("", "")])
def test_mains_profiles_are_for_everybody_and_others_for_their_owner(owner: str, agent: str) -> None:
    """A store without an owner is for all agents too, and remembers nothing."""
    unit = read({"openai:x": {"type": "api_key", "key": "k"}}, owner=owner, order={"openai": ["openai:x"]})
    assert [profile.agent for profile in unit.profiles] == [agent]
    assert unit.owner == owner
    assert bool(unit.usage) is bool(unit.orders) is bool(owner)


@pytest.mark.parametrize(
    ("profile_id", "entry", "why"),
    [
        ("anthropic", {"type": "api_key", "provider": "anthropic", "key": API_KEY}, "rename it to provider:name"),
        (":x", {"type": "api_key", "key": API_KEY}, "not a profile id"),
        ("anthropic:", {"type": "api_key", "key": API_KEY}, "not a profile id"),
        ("anthropic:\x1b[2J", {"type": "api_key", "key": API_KEY}, "cannot be shown: rename it"),
        ("anthropic:" + "x" * 300, {"type": "api_key", "key": API_KEY}, "too long"),
        ("acme:x", {"type": "api_key", "key": API_KEY}, "unknown provider: add that to providers"),
        ("anthropic:x", {"type": "api_key", "provider": "acme", "key": API_KEY}, "unknown provider"),
        ("anthropic:x", {"type": "passkey", "key": API_KEY}, "a type that this program does not know"),
        ("anthropic:x", {"type": "wif", "key": API_KEY}, "a type that this program does not know"),
        ("anthropic:x", {"type": ["api_key"], "key": API_KEY}, "a type that this program does not know"),
        ("anthropic:x", {"key": API_KEY}, "a type that this program does not know"),
        ("anthropic:x", API_KEY, "a profile is an object with a type"),
        ("anthropic:x", None, "a profile is an object with a type"),
    ],
)
def test_an_entry_that_is_not_a_profile_is_a_fault_and_no_obstacle(profile_id: str, entry: Any, why: str) -> None:
    """The fault says where and what to do, and has no part of the secret; the next entry is a profile."""
    unit = read({profile_id: entry, "openai:good": {"type": "api_key", "key": "k"}})
    assert [profile.id for profile in unit.profiles] == ["openai:good"]
    assert len(unit.faults) == 1
    assert why in unit.faults[0].message
    assert unit.faults[0].where.startswith("/s.json ")
    assert unit.faults[0].message.isprintable()
    assert len(unit.faults[0].message) < 300
    assert API_KEY[:12] not in repr(unit.faults)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"type": "api_key"}, "has no 'key'"),
        ({"type": "api_key", "key": 5}, "has no 'key'"),
        ({"type": "api_key", "token": TOKEN}, "where 'key' is meant"),
        ({"type": "api_key", "key": "  "}, "has a 'key' that is empty"),
        ({"type": "api_key", "key": TOKEN}, "has a 'key' that is an OAuth token, not an API key"),
        ({"type": "token", "token": API_KEY}, "has a 'token' that is an API key, not an OAuth token"),
        ({"type": "oauth", "refresh": REFRESH}, "has no 'access'"),
        ({"type": "api_key", "key": "sk-or-v1-0123456789"}, "is a credential of openrouter"),
    ],
)
def test_an_entry_without_a_usable_secret_is_an_invalid_profile(entry: dict[str, Any], why: str) -> None:
    """It is shown as what it is, and why it does not serve; one that can be refreshed has what that takes."""
    profile = only(entry)
    assert profile.secret is None
    assert why in profile.fault
    assert profile.fault.startswith("/s.json anthropic:x ")
    assert (profile.refresh is not None) is ("refresh" in entry)


def test_names_of_providers_are_normalised_and_the_provider_field_decides() -> None:
    """As in OpenClaw, where an id is only a name; of two entries that come to one profile the first counts."""
    unit = read({
        "z.ai:x": {"type": "api_key", "provider": "z.ai", "key": "k1"},
        "openai:y": {"type": "api_key", "provider": "openrouter", "key": "k2"},
        "zai:x": {"type": "api_key", "provider": "zai", "key": "k3"},
    })  # fmt: skip
    assert [(p.id, p.provider, p.secret and p.secret.reveal()) for p in unit.profiles] == [
        ("zai:x", "zai", "k1"), ("openrouter:y", "openrouter", "k2"),
    ]  # fmt: skip
    assert messages(unit) == ["/s.json zai:x is another entry for zai:x, which is above it: rename or remove one"]


def test_profiles_are_found_again_in_the_store() -> None:
    """By their ids in the store."""
    document = AuthDocument({"profiles": {"z.ai:x": {"type": "api_key", "key": "k"}, "odd": {}, "zai:x": {"type": "token"}}})
    assert entry_ids(document, UNSHAPED) == {"zai:x": "z.ai:x"}


def test_usage_goes_by_profile_and_names_every_one() -> None:
    """Also one of which nothing is remembered; what is remembered of others stays in the file."""
    unit = read(
        {"z.ai:x": {"type": "api_key", "key": "k"}, "zai:y": {"type": "api_key", "key": "k"}},
        usageStats={"z.ai:x": {"lastUsed": AT * 1000}, "zai:gone": {"lastUsed": 1}},
    )
    assert unit.usage == {"zai:x": Usage(last_used=AT), "zai:y": Usage()}


def test_orders_are_normalised_and_faults_of_them_said() -> None:
    """A profile of another provider is left out. An unknown profile stays, and is reported by the resolver."""
    unit = read(
        {},
        order={
            "z.ai": ["z.ai:b", "zai:a", "zai:b", "zai:unknown"],
            "anthropic": ["openai:x", "anthropic:y", "default"],
            "acme": ["acme:x"],
            "openai": "openai:x",
            "openrouter": ["openai:x"],
            "google": [],
        },
    )
    assert unit.orders == {
        "zai": ("zai:b", "zai:a", "zai:unknown"), "anthropic": ("anthropic:y",), "openrouter": ("openai:x",), "google": (),
    }  # fmt: skip
    assert messages(unit) == [
        "/s.json order of anthropic: openai:x is not a profile of anthropic: set the order again",
        "/s.json order of anthropic: default has no colon, so it is not a profile id: set the order again",
        "/s.json has an order of acme that no program can use: set it again",
        "/s.json has an order of openai that no program can use: set it again",
        "/s.json order of openrouter: openai:x is not a profile of openrouter: set the order again",
    ]


def test_an_order_takes_the_place_of_one_under_another_name() -> None:
    """Otherwise both would be there, and it would not be clear which one counts."""
    document = AuthDocument({"order": {"z.ai": ["zai:a"], "zai": "odd", "openai": ["openai:x"]}})
    assert with_order_of(document, "zai", ["zai:b"], UNSHAPED).raw == {"order": {"openai": ["openai:x"], "zai": ["zai:b"]}}
    assert with_order_of(document, "zai", [], UNSHAPED).raw == {"order": {"openai": ["openai:x"]}}


@pytest.mark.parametrize("name", ["anthropic:claude-cli", "openai-codex:codex-cli", "qwen-portal:qwen-cli"])
def test_the_refresh_token_of_another_tools_login_is_not_ours(name: str) -> None:
    """Unless the configuration says so: two that redeem it end each other's login."""
    entry = {"type": "oauth", "access": TOKEN if name.startswith("anthropic") else "a", "refresh": "r"}
    assert only(entry, name).refresh is None
    assert only(entry, name, rules=DiscoveryRules(UNSHAPED, foreign_logins=frozenset())).refresh == SecretValue("r")


def test_a_refused_refresh_is_remembered_for_that_token_alone() -> None:
    """A new login removes it, also one by a program that keeps unknown fields."""
    entry = {"type": "oauth", "access": TOKEN, "refresh": REFRESH}
    noted = {"code": "invalid_grant", "at": 1, "digest": fingerprint(SecretValue(REFRESH))}
    assert only(entry).reauth == ""
    assert only(entry | {"reauthRequired": noted}).reauth == "invalid_grant"
    assert only(entry | {"reauthRequired": noted, "refresh": REFRESH + "2"}).reauth == ""
    assert only(entry | {"reauthRequired": {"at": 1}}).reauth == "the refresh failed for good"
    assert only(entry | {"reauthRequired": {"code": "\x1b"}}).reauth == "the refresh failed for good"
    assert only(entry | {"reauthRequired": True}).reauth == ""


def test_the_configuration_has_the_last_word() -> None:
    """On expiry and mode, as for any other source."""
    overrides = {"anthropic:x": Override(mode=Mode.TOKEN, expires_at=AT)}
    profile = only({"type": "api_key", "key": TOKEN}, rules=DiscoveryRules(UNSHAPED, overrides=overrides))
    assert (profile.mode, profile.expires_at, profile.secret) == (Mode.TOKEN, AT, SecretValue(TOKEN))


@pytest.mark.parametrize(
    ("value", "seconds", "doubt"),
    [
        (None, None, ""),
        (AT * 1000, AT, ""),
        (1_900_000_000_500, AT + 0.5, ""),
        (1_900_000_000, AT, "looks like seconds"),
        (1_900_000_000.25, AT + 0.25, "looks like seconds"),
        ("1900000000000", AT, "is a text"),
        (" 1900000000 ", AT, "looks like seconds"),
        ("2030-03-17T17:46:40Z", AT, "is a text"),
        ("2030-03-17T17:46:40", AT, "is a text"),
        ("2030-03-17T18:46:40+01:00", AT, "is a text"),
        (0, None, "zero or negative"),
        (-1, None, "zero or negative"),
        ("-5", None, "zero or negative"),
        (1e300, None, "beyond the calendar"),
        (10**400, None, "beyond the calendar"),
        ("9" * 400, None, "beyond the calendar"),
        (float("nan"), None, "is not a number"),
        ("nan", None, "is not a number"),
        (True, None, "is not a number"),
        ("soon", None, "is not a number"),
        ("", None, "is not a number"),
        ([1], None, "is not a number"),
        ({}, None, "is not a number"),
    ],
)
def test_expiries_of_all_sorts(value: object, seconds: float | None, doubt: str) -> None:
    """Milliseconds are meant; what is close is understood, with a word about it; the rest says nothing."""
    found, said = instant(value)
    assert found == seconds
    assert doubt in said
    assert bool(said) is bool(doubt)


def test_a_doubtful_expiry_is_a_fault_next_to_the_profile() -> None:
    """The credential serves; an API key has none, whatever is written there."""
    unit = read({
        "anthropic:x": {"type": "token", "token": TOKEN, "expires": -1},
        "anthropic:y": {"type": "api_key", "key": API_KEY, "expires": -1},
    })  # fmt: skip
    assert [profile.secret is None for profile in unit.profiles] == [False, False]
    assert messages(unit) == ["/s.json anthropic:x: its 'expires' is zero or negative: treated as unknown"]


@pytest.mark.parametrize(
    "entry",
    [
        {"mode": "api_key", "provider": "anthropic", "key": API_KEY},
        {"type": "api_key", "provider": "anthropic", "apiKey": API_KEY},
        {"mode": "api_key", "apiKey": API_KEY},
    ],
)
def test_the_other_names_that_openclaw_takes_are_taken(entry: dict[str, Any]) -> None:
    """P14: `mode` for `type` and `apiKey` for `key`, as its reader does; and it is said, for other programs do not."""
    unit = read({"anthropic:x": entry})
    assert [(profile.mode, profile.secret) for profile in unit.profiles] == [(Mode.API_KEY, SecretValue(API_KEY))]
    assert messages(unit) == ["/s.json anthropic:x has other names of fields: 'mode' is read as 'type', and 'apiKey' as 'key'"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"type": "api_key", "keyRef": {"source": "env", "id": "S3CRET"}}, "a reference to its secret"),
        ({"type": "api_key", "key": {"source": "env", "id": "S3CRET"}}, "a reference to its secret"),
        ({"type": "token", "tokenRef": {"source": "exec", "id": "S3CRET"}}, "a reference to its secret"),
        ({"type": "api_key", "api_key": API_KEY}, "has a 'api_key', where 'key' is meant"),
        ({"type": "token", "accessToken": TOKEN}, "has a 'accessToken', where 'token' is meant"),
        ({"type": "oauth", "access_token": TOKEN}, "has a 'access_token', where 'access' is meant"),
        ({"type": "api_key", "key": None}, "has no 'key'"),
    ],
)
def test_what_is_not_read_is_named(entry: dict[str, Any], why: str) -> None:
    """P14: a reference, or a field of another program: the message says what is there and what is meant."""
    profile = only({"provider": "anthropic", **entry})
    assert profile.secret is None
    assert why in profile.fault
    assert "S3CRET" not in profile.fault


@pytest.mark.parametrize(
    "raw",
    [
        {"anthropic": {"apiKey": API_KEY}},
        {"anthropic": {"type": "api_key", "key": API_KEY}},
        {"version": 1, "anthropic:default": {"type": "api_key", "key": API_KEY}},
        {"profiles": {}, "anthropic:default": {"provider": "anthropic"}},
        {"openai": {"access_token": "s3cret"}, "note": {"x": 1}},
        {"accounts": {"anthropic:default": {"type": "api_key", "key": API_KEY}}},
        {"credentials": [{"type": "api_key", "key": API_KEY}]},
        {"anthropic": API_KEY},
        {"env": {"ANTHROPIC_API_KEY": API_KEY}},
        {"keys": [API_KEY]},
        {"auth": {"profiles": {"anthropic:default": {"type": "api_key", "key": API_KEY}}}},
    ],
)
def test_credentials_outside_of_profiles_are_said(raw: dict[str, Any]) -> None:
    """P10: what people write by hand, without `profiles` around it, is not passed over in silence."""
    unit = store_unit(AuthDocument(raw), rules=RULES, source="s", name="main", origin="/s.json", owner="main")
    (name,) = (name for name in raw if name not in ("version", "profiles", "note"))
    assert unit.profiles == ()
    assert messages(unit) == [f"/s.json has credentials outside of 'profiles', which are not read: move {name} there"]


@pytest.mark.parametrize("raw", [{}, {"version": 1}, {"profiles": {}}, {"version": 1, "note": {"x": 1}, "tags": ["a"]}])
def test_an_empty_store_is_not_a_fault(raw: dict[str, Any]) -> None:
    """P10: fields of other programs stay what they are."""
    unit = store_unit(AuthDocument(raw), rules=RULES, source="s", name="main", origin="/s.json", owner="main")
    assert (unit.profiles, unit.faults) == ((), ())
