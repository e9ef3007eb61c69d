"""The login files of other tools, as they write them and as they should not."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.bundle_profiles import DiscoveryRules, Override
from equabot_broker.domain.material import Unit
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Mode
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.tool_logins import CLAUDE, CODEX, QWEN, SIZE_MAX, Tool, read_login, with_login, without_copy
from equabot_broker.parsing.jwt import claims
from equabot_broker.parsing.untrusted_json import Malformed
from equabot_broker.providers import BUILT_IN

RULES = DiscoveryRules(BUILT_IN)
OURS = DiscoveryRules(BUILT_IN, foreign_logins=frozenset())
ACCESS = "sk-ant-oat01-" + "a" * 95
REFRESH = "sk-ant-ort01-" + "r" * 95
AT = 1_900_000_000.0
CHANGED = 1_800_000_000.0


def token(**said: object) -> str:
    """A JSON Web Token with these claims."""
    parts = ({"alg": "none"}, said)
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts), "sig"])


def read(tool: Tool, contents: object, rules: DiscoveryRules = RULES, **more: str) -> Unit:
    text = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
    return read_login(tool, text, changed_at=CHANGED, rules=rules, source="s", unit="", origin="/f", **more)


def login(tool: Tool, contents: object, rules: DiscoveryRules = RULES) -> Profile:
    (profile,) = read(tool, contents, rules).profiles
    return profile


def claude(**fields: object) -> dict[str, Any]:
    known = {"accessToken": ACCESS, "refreshToken": REFRESH, "expiresAt": AT * 1000, "scopes": ["x"], "subscriptionType": "max"}
    return {"claudeAiOauth": {name: value for name, value in (known | fields).items() if value != "absent"}, "mcpOAuth": {}}


def test_the_login_of_the_claude_cli() -> None:
    """An OAuth login whose refresh token stays Claude's, whatever the configuration says of those in stores."""
    assert login(CLAUDE, claude()) == Profile(
        id="anthropic:claude-cli", provider="anthropic", mode=Mode.OAUTH, source="s", unit="", origin="/f",
        secret=SecretValue(ACCESS), expires_at=AT,
    )  # fmt: skip
    assert login(CLAUDE, claude(), OURS).refresh is None


@pytest.mark.parametrize("refresh", ["absent", "", None, 5])
def test_a_login_without_refresh_token_is_a_token(refresh: object) -> None:
    """Such as `claude setup-token` leaves."""
    profile = login(CLAUDE, claude(refreshToken=refresh), OURS)
    assert (profile.mode, profile.refresh) == (Mode.TOKEN, None)


@pytest.mark.parametrize(
    ("expires", "why"),
    [
        ("absent", "is missing"), (None, "is missing"), ("", "is not a"), (0, "is zero or negative"), (-5, "is zero or"),
        ("x", "is not a number"),
    ],
)  # fmt: skip
def test_a_claude_login_that_does_not_say_when_it_ends_is_ignored(expires: object, why: str) -> None:
    """And that is said, with the way to a better one."""
    unit = read(CLAUDE, claude(expiresAt=expires))
    assert unit.profiles == ()
    assert [why in fault.message and "`claude setup-token`" in fault.message for fault in unit.faults] == [True]
    assert ACCESS[:14] not in unit.faults[0].message


@pytest.mark.parametrize("refresh", ["absent", "", None])
@pytest.mark.parametrize("expires", ["absent", None])
def test_a_claude_login_of_a_token_alone_is_static(refresh: object, expires: object) -> None:
    """P15: container images write a setup token and its scopes, and nothing else. It has no end that is known."""
    unit = read(CLAUDE, claude(refreshToken=refresh, expiresAt=expires))
    (profile,) = unit.profiles
    assert (profile.mode, profile.secret, profile.expires_at) == (Mode.TOKEN, SecretValue(ACCESS), None)
    assert unit.faults == ()


@pytest.mark.parametrize(
    ("tool", "contents", "why"),
    [
        (CLAUDE, {}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, {"mcpOAuth": {"x": 1}}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, {"claudeAiOauth": None}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, {"claudeAiOauth": []}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, {"claude_ai_oauth": {"access_token": "s3cret"}}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, {"accessToken": "s3cret", "expiresAt": 1}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, {"token": "s3cret"}, "there is no object 'claudeAiOauth'"),
        (CLAUDE, claude(accessToken=""), "without an accessToken, as after a logout"),
        (CLAUDE, {"claudeAiOauth": {}}, "without an accessToken, as after a logout"),
        (CODEX, {"OPENAI_API_KEY": "s3cret", "tokens": None}, "an API key and no login"),
        (CODEX, {}, "no access_token in an object 'tokens'"),
        (CODEX, {"tokens": ["s3cret"]}, "no access_token in an object 'tokens'"),
        (CODEX, {"tokens": {"access_token": None}}, "no access_token in an object 'tokens'"),
        (CODEX, {"access_token": "s3cret"}, "no access_token in an object 'tokens'"),
        (QWEN, {}, "there is no access_token in it"),
        (QWEN, {"access_token": " "}, "there is no access_token in it"),
        (QWEN, {"accessToken": "s3cret"}, "there is no access_token in it"),
    ],
)
def test_a_file_that_holds_no_login_says_so(tool: Tool, contents: object, why: str) -> None:
    """P10: another shape, a logout, an API key: what was looked at and held nothing is said, with what to do."""
    unit = read(tool, contents)
    assert unit.profiles == ()
    (fault,) = unit.faults
    assert fault.message.startswith("/f holds ")
    assert why in fault.message
    assert tool.remedy in fault.message
    assert "s3cret" not in fault.message


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        (None, ""),
        ("portal.qwen.ai", ""),
        ("https://portal.qwen.ai/v1", ""),
        ("dashscope.aliyuncs.com/compatible-mode", "to https://dashscope.aliyuncs.com/compatible-mode/v1"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "to https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        ("http://dashscope.aliyuncs.com", "not an https address of Qwen"),
        ("evil.example", "not an https address of Qwen"),
        ("https://portal.qwen.ai@evil.example/", "not an https address of Qwen"),
        ("https://evilaliyuncs.com", "not an https address of Qwen"),
        ("https://[", "not an https address of Qwen"),
    ],
)
def test_a_login_of_qwen_for_another_address_says_what_to_set(resource: str | None, said: str) -> None:
    """P19: the file does not choose where tokens are sent; the operator does, in one line. Other addresses are not repeated."""
    contents = {"access_token": "q", "refresh_token": "r", "expiry_date": AT * 1000, "resource_url": resource}
    unit = read(QWEN, contents)
    assert len(unit.profiles) == 1
    assert [said in fault.message for fault in unit.faults] == ([True] if said else [])
    assert not any("evil" in fault.message for fault in unit.faults)


@pytest.mark.parametrize("exp", [AT, str(int(AT))])
def test_a_codex_token_may_say_its_end_in_digits(exp: object) -> None:
    """P10: a number in quotes is that number."""
    assert login(CODEX, {"tokens": {"access_token": token(exp=exp)}}).expires_at == AT


def test_a_claude_login_that_holds_an_api_key_is_invalid() -> None:
    """It would be sent as what it is not."""
    profile = login(CLAUDE, claude(accessToken="sk-ant-api03-" + "k" * 80))
    assert profile.secret is None
    assert profile.fault.startswith("/f has an access token that is an API key, not an OAuth token")


def test_the_login_of_the_codex_cli() -> None:
    """It ends when its token says so; its account is next to it."""
    access, id_token = token(exp=AT), token(email="me@x.org")
    contents = {"tokens": {"access_token": access, "refresh_token": "r", "account_id": "acc", "id_token": id_token}}
    assert login(CODEX, contents) == Profile(
        id="openai-codex:codex-cli", provider="openai-codex", mode=Mode.OAUTH, source="s", unit="", origin="/f",
        secret=SecretValue(access), expires_at=AT, account="acc", email="me@x.org",
    )  # fmt: skip


@pytest.mark.parametrize(
    "access",
    ["opaque", "a.b.c", "a.!!!.c", token(), token(exp="soon"), token(exp=True), token(exp=-1), token(exp=10**400)],
)  # fmt: skip
def test_a_codex_token_that_does_not_say_when_it_ends_lives_for_an_hour(access: str) -> None:
    """From the last change of the file on."""
    assert login(CODEX, {"tokens": {"access_token": access}}).expires_at == CHANGED + 3600


def test_the_login_of_qwen() -> None:
    """Its instants are milliseconds; one without is ignored."""
    profile = login(QWEN, {"access_token": "q", "refresh_token": "r", "expiry_date": AT * 1000})
    assert (profile.id, profile.provider, profile.mode) == ("qwen-portal:qwen-cli", "qwen-portal", Mode.OAUTH)
    assert (profile.secret, profile.expires_at, profile.refresh) == (SecretValue("q"), AT, None)
    assert "expiry_date is missing" in read(QWEN, {"access_token": "q"}).faults[0].message


def test_it_may_be_called_otherwise_and_the_configuration_has_the_last_word() -> None:
    """A team's Secret is named after itself; that does not make its refresh token the broker's."""
    rules = DiscoveryRules(BUILT_IN, overrides={"anthropic:team": Override(expires_at=AT + 5)})
    (profile,) = read(CLAUDE, claude(), rules, profile_id="anthropic:team").profiles
    assert (profile.id, profile.expires_at, profile.refresh) == ("anthropic:team", AT + 5, None)


OAUTH = {"type": "oauth", "provider": "anthropic", "access": ACCESS, "expires": int(AT * 1000)}
TOKEN = {"type": "token", "provider": "anthropic", "token": ACCESS, "expires": int(AT * 1000)}
COPY = {"copiedFrom": "s"}
SOONER, LATER = int(AT * 1000) - 1, int(AT * 1000) + 1


@pytest.mark.parametrize(
    ("before", "file", "after"),
    [
        (None, claude(), OAUTH | COPY),
        (None, claude(refreshToken=""), TOKEN | COPY),
        (OAUTH | {"access": "old", "expires": SOONER, "refresh": "r", "note": 1}, claude(), OAUTH | COPY | {"note": 1}),
        (OAUTH | {"access": "newer", "expires": LATER, "refresh": "r"}, claude(), "same"),
        (OAUTH | {"access": "as old", "refresh": "r"}, claude(), "same"),
        (OAUTH | {"expires": SOONER, "refresh": "r"}, claude(), "same"),
        (TOKEN | {"expires": SOONER}, claude(refreshToken=""), "same"),
        (TOKEN | {"token": "old", "expires": SOONER}, claude(refreshToken=""), TOKEN | COPY),
        (TOKEN | {"token": "static", "expires": None}, claude(refreshToken=""), TOKEN | COPY),
        (TOKEN, claude(), OAUTH | COPY),
        (TOKEN | {"token": "newer", "expires": LATER}, claude(), "same"),
        (OAUTH | {"access": "old", "expires": 1}, claude(refreshToken=""), "same"),
        ({"type": "api_key", "key": "k"}, claude(), "same"),
        ("odd", claude(), "same"),
        (None, claude(expiresAt=CHANGED * 1000), None),
        (None, claude(accessToken="sk-ant-api03-" + "k" * 80), None),
    ],
)  # fmt: skip
def test_a_newer_login_is_copied_into_a_store(before: Any, file: dict[str, Any], after: Any) -> None:
    """Without its refresh token; a token becomes an OAuth login, never the reverse; what is as new stays as it is."""
    document = AuthDocument({"profiles": {} if before is None else {"anthropic:claude-cli": before}, "x": 1})
    copied = with_login(document, login(CLAUDE, file), now=CHANGED)
    expected = {} if after is None else {"anthropic:claude-cli": before if after == "same" else after}
    assert copied.raw == {"profiles": expected, "x": 1}
    assert with_login(copied, login(CLAUDE, file), now=CHANGED) == copied


@pytest.mark.parametrize(("entry", "goes"), [(OAUTH | COPY, True), (OAUTH, False), (TOKEN | {"copiedFrom": "t"}, False)])
def test_only_a_copy_of_that_source_goes_with_its_login(entry: dict[str, Any], goes: bool) -> None:
    """P11: what a person stored under the same id stays."""
    document = AuthDocument({"profiles": {"anthropic:claude-cli": entry, "anthropic:a": TOKEN}})
    after = without_copy(document, "anthropic:claude-cli", "s")
    assert ("anthropic:claude-cli" in after.entries, "anthropic:a" in after.entries) == (not goes, True)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "empty"), (b"{", "breaks"), (b"[]", "not a JSON object"), (b" " * (SIZE_MAX + 1), "larger"), (b"\xff", "UTF-8")],
)  # fmt: skip
@pytest.mark.parametrize("tool", [CLAUDE, CODEX, QWEN])
def test_what_is_not_a_login_file_is_malformed(tool: Tool, content: bytes, why: str) -> None:
    """So that the last good login goes on being served."""
    with pytest.raises(Malformed, match=why):
        read(tool, content)


@given(text=st.text(max_size=80) | st.lists(st.text(max_size=20), min_size=3, max_size=3).map(".".join))
def test_any_text_has_claims_or_none(text: str) -> None:
    """A text that is not a JSON Web Token has no claims."""
    assert isinstance(claims(text), dict)
