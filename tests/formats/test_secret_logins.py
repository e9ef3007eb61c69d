"""A Secret as a store of logins: marks in annotations, tokens in data keys, and nothing else touched."""

import json
from dataclasses import replace
from typing import Any

import pytest

from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import AuthDocument
from equabot_broker.formats.refresh_marks import digest, with_intent, with_refusal, with_tokens
from equabot_broker.formats.secret_logins import SecretLogins
from equabot_broker.oauth.refreshing import Tokens
from equabot_broker.parsing.untrusted_json import Malformed

NOW = 1_800_000_000.0
STORE, CLAUDE = "auth-profiles.json", ".credentials.json"
PENDING, REAUTH, SPENT = (f"equabot.dev/{name}" for name in ("pending-refresh", "reauth-required", "spent-refresh"))
ENTRY = {"type": "oauth", "provider": "acme", "access": "at-1", "refresh": "rt-1", "expires": 5, "theirs": 1}
OTHER = {"type": "api_key", "provider": "x", "key": "k"}
TEXT = json.dumps({"version": 1, "theirs": True, "profiles": {"acme:me": ENTRY, "x:y": OTHER}}).encode()
OAUTH = {"accessToken": "at-c", "refreshToken": "rt-c", "expiresAt": 1_900_000_000_000, "scopes": ["user"]}
LOGIN = json.dumps({"claudeAiOauth": OAUTH, "mcp": 1}).encode()
TOKENS = Tokens(SecretValue("at-2"), SecretValue("rt-2"), NOW, NOW + 600)
SECRET = SecretLogins({STORE: TEXT, CLAUDE: LOGIN}, {"team": "a"})


def changed(secret: SecretLogins, name: str, entry: dict[str, Any]) -> SecretLogins:
    document = secret.document()
    return secret.replaced(AuthDocument({**document.raw, "profiles": {**document.entries, name: entry}}))


def noted(secret: SecretLogins, annotation: str) -> dict[str, Any]:
    found = json.loads(secret.annotations[annotation])
    assert isinstance(found, dict)
    return found


def test_a_secret_does_not_show_what_it_holds() -> None:
    """Nor do its annotations: applying a Secret leaves all of its data in one of them."""
    applied = {"kubectl.kubernetes.io/last-applied-configuration": LOGIN.decode()}
    assert "rt-c" not in repr(SecretLogins({CLAUDE: LOGIN}, applied, "acme:me"))


def test_an_intent_is_an_annotation() -> None:
    """The data stays byte for byte the same; a reader of the Secret finds the intent in the entry."""
    written = with_intent(ENTRY, by="a", now=NOW)
    secret = changed(SECRET, "acme:me", written)
    assert secret.values == SECRET.values
    assert secret.annotations.keys() == {"team", PENDING}
    assert noted(secret, PENDING) == {"acme:me": {"at": int(NOW * 1000), "by": "a", "digest": digest(ENTRY)}}
    assert secret.document().entries == {"acme:me": written, "x:y": OTHER}
    assert "rt-1" not in str(secret.annotations)
    assert changed(secret, "acme:me", ENTRY) == SECRET


def test_tokens_are_data() -> None:
    """The marks of the refresh go, everything else in the store stays, and the spent token is remembered by its digest."""
    secret = changed(
        changed(SECRET, "acme:me", with_intent(ENTRY, by="a", now=NOW)), "acme:me", with_tokens(ENTRY, TOKENS, by="a")
    )
    stored = json.loads(secret.values[STORE])
    assert stored == {"version": 1, "theirs": True, "profiles": {"acme:me": with_tokens(ENTRY, TOKENS, by="a"), "x:y": OTHER}}
    assert secret.values[CLAUDE] == LOGIN
    assert secret.annotations.keys() == {"team", SPENT}
    assert noted(secret, SPENT) == {"acme:me": [digest(ENTRY)]}


def test_a_token_that_was_put_back_is_not_the_brokers_any_more() -> None:
    """An older manifest was applied: its token was exchanged for other tokens, and must not be sent again."""
    secret = changed(SECRET, "acme:me", with_tokens(ENTRY, TOKENS, by="a"))
    back = replace(secret, values={**secret.values, STORE: TEXT})
    assert back.document().entries["acme:me"]["reauthRequired"] == {"code": "superseded", "digest": digest(ENTRY)}
    anew = ENTRY | {"refresh": "rt-9"}
    assert "reauthRequired" not in changed(back, "acme:me", anew).document().entries["acme:me"]


def test_what_was_given_up_stays_so_after_the_next_login() -> None:
    """A token that a dead process had in hand may be spent: who puts it back must not have it sent."""
    broken = changed(SECRET, "acme:me", with_intent(ENTRY, by="a", now=NOW))
    anew = replace(broken, values={**broken.values, STORE: TEXT.replace(b"rt-1", b"rt-5")})
    (refreshed,) = {
        changed(anew, "acme:me", with_tokens(anew.document().entries["acme:me"], TOKENS, by="a")).annotations[SPENT]
    }
    assert json.loads(refreshed) == {"acme:me": [digest(ENTRY), digest({"refresh": "rt-5"})]}


def test_only_the_last_spent_tokens_are_remembered() -> None:
    """An annotation has its bounds; older manifests than those are rare."""
    secret = SECRET
    for number in range(12):
        entry = dict(secret.document().entries["acme:me"])
        secret = changed(secret, "acme:me", entry | {"refresh": f"rt-{number + 2}"})
    assert noted(secret, SPENT) == {"acme:me": [digest({"refresh": f"rt-{number}"}) for number in range(5, 13)]}


def test_a_refusal_is_an_annotation() -> None:
    """Which counts for the token that was refused, and no other."""
    secret = changed(SECRET, "acme:me", with_refusal(ENTRY, "invalid_grant", now=NOW))
    assert (secret.values, noted(secret, REAUTH)["acme:me"]["code"]) == (SECRET.values, "invalid_grant")


def test_claudes_login_is_an_entry_where_it_is_asked_for() -> None:
    """Its tokens go back into its own file, with everything else that is there."""
    secret = replace(SECRET, claude="anthropic:llm")
    entry = secret.document().entries["anthropic:llm"]
    assert entry == {
        "type": "oauth", "provider": "anthropic", "access": "at-c", "refresh": "rt-c", "expires": 1_900_000_000_000,
    }  # fmt: skip
    intended = changed(secret, "anthropic:llm", with_intent(entry, by="a", now=NOW))
    assert intended.values == SECRET.values
    assert intended.document().entries["anthropic:llm"] == with_intent(entry, by="a", now=NOW)
    refreshed = changed(intended, "anthropic:llm", with_tokens(entry, TOKENS, by="a"))
    given = {"accessToken": "at-2", "refreshToken": "rt-2", "expiresAt": int((NOW + 600) * 1000)}
    assert json.loads(refreshed.values[CLAUDE]) == {"claudeAiOauth": OAUTH | given, "mcp": 1}
    assert refreshed.values[STORE] == TEXT
    assert noted(refreshed, SPENT) == {"anthropic:llm": [digest(entry)]}


def test_what_is_noted_of_claudes_login_stays_while_another_is_refreshed() -> None:
    """Who refreshes an entry of the store does not look at it."""
    secret = changed(
        replace(SECRET, claude="anthropic:llm"), "anthropic:llm", with_intent({"refresh": "rt-c"}, by="a", now=NOW)
    )
    other = changed(replace(secret, claude=""), "acme:me", with_tokens(ENTRY, TOKENS, by="a"))
    assert noted(other, PENDING).keys() == {"anthropic:llm"}


@pytest.mark.parametrize("login", [b"{}", b'{"claudeAiOauth": {"accessToken": "a"}}', b'{"claudeAiOauth": 5}'])
def test_a_file_without_a_login_that_can_be_refreshed_is_not_an_entry(login: bytes) -> None:
    """There is no login, or it is a plain token."""
    assert dict(SecretLogins({CLAUDE: login}, {}, "anthropic:llm").document().entries) == {}


@pytest.mark.parametrize(
    ("secret", "why"),
    [
        (SecretLogins({STORE: b"{ broken"}, {}), "auth-profiles.json is not usable"),
        (SecretLogins({CLAUDE: b"{ broken"}, {}, "anthropic:llm"), ".credentials.json is not usable"),
        (SecretLogins({STORE: TEXT}, {PENDING: "{ sk-ant-secret"}), "annotation equabot.dev/pending-refresh"),
        (SecretLogins({STORE: TEXT}, {SPENT: "[]"}), "annotation equabot.dev/spent-refresh"),
    ],
)
def test_what_cannot_be_understood_is_refused_whole(secret: SecretLogins, why: str) -> None:
    """And reported without any part of it: an unreadable mark may have said that a token is used up."""
    with pytest.raises(Malformed, match=why) as raised:
        secret.document()
    assert "sk-ant" not in str(raised.value)


@pytest.mark.parametrize("mark", [{}, {"acme:me": 5}, {"acme:me": None}, {"gone:x": {"digest": "d"}}, {"x:y": {"digest": ""}}])
def test_changed_marks_are_read_as_far_as_possible(mark: dict[str, Any]) -> None:
    """Nothing of this entry."""
    text = json.dumps(mark)
    entries = SecretLogins({STORE: TEXT}, {PENDING: text, REAUTH: text, SPENT: text}).document().entries
    assert entries == {"acme:me": ENTRY, "x:y": OTHER}
