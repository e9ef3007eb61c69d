"""A login from refresh to refresh: which step is next, and what each leaves in the entry of the store."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.bundle_profiles import DiscoveryRules
from equabot_broker.domain.profiles import Profile
from equabot_broker.domain.provider import Catalog, Provider
from equabot_broker.domain.relogin import how_to_log_in, login_command
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import AuthDocument, parse, serialize
from equabot_broker.formats.auth_entries import store_unit
from equabot_broker.formats.refresh_marks import (
    digest,
    issued_at,
    pending,
    with_doubt,
    with_intent,
    with_interruption,
    with_refusal,
    with_tokens,
    without_intent,
)
from equabot_broker.oauth.refresh_steps import Pending, Step, decide
from equabot_broker.oauth.refreshing import Tokens

NOW = 1_800_000_000.0
ENTRY: dict[str, Any] = {
    "type": "oauth",
    "provider": "acme",
    "access": "at-1",
    "refresh": "rt-1",
    "expires": int((NOW + 60) * 1000),
    "enterpriseUrl": "https://theirs.example",
    "somebody": {"elses": ["field"]},
}
TOKENS = Tokens(SecretValue("at-2"), SecretValue("rt-2"), NOW, NOW + 600.5)
RULES = DiscoveryRules(Catalog({"acme": Provider(id="acme", token_url="https://login.acme.example/token")}))


def profile(entry: dict[str, Any]) -> Profile:
    """The entry as the broker reads it from a file."""
    text = serialize(AuthDocument({"version": 1, "profiles": {"acme:me": entry}}))
    return store_unit(parse(text), rules=RULES, source="s", name="u", origin="o", owner="main").profiles[0]


def step(entry: dict[str, Any] = ENTRY, *, seen: str | None = "at-1", forced: bool = False, now: float = NOW) -> Step:
    access = None if seen is None else SecretValue(seen)
    return decide(profile(entry), pending(entry), seen=access, forced=forced, now=now)


# -- which step is next ------------------------------------------------------------------------------------------------


def test_due_login_is_refreshed() -> None:
    """Also when its access token has long expired, or is missing."""
    assert step() is Step.REDEEM
    assert step(now=NOW + 10**6) is Step.REDEEM
    assert step(ENTRY | {"access": ""}, seen=None) is Step.REDEEM


def test_refresh_of_another_process_is_adopted() -> None:
    """Nothing is sent. Where that is due again by now, it is redeemed."""
    refreshed = ENTRY | {"access": "at-2", "refresh": "rt-2", "expires": int((NOW + 600) * 1000)}
    assert step(refreshed) is Step.ADOPT
    assert step(refreshed, forced=True) is Step.ADOPT
    assert step(refreshed, now=NOW + 590) is Step.REDEEM
    del refreshed["expires"]
    assert step(refreshed) is Step.ADOPT


def test_an_access_token_that_is_refused_is_replaced_before_its_time() -> None:
    """Forced means that this very token does not serve."""
    young = ENTRY | {"expires": int((NOW + 10**5) * 1000)}
    assert step(young, forced=True) is Step.REDEEM
    assert step(young, forced=True, seen="at-0") is Step.ADOPT


def test_removed_login_is_skipped() -> None:
    """Whoever took its place."""
    assert decide(None, Pending.NOTHING, seen=None, forced=True, now=NOW) is Step.GONE
    assert step(ENTRY | {"refresh": ""}) is Step.GONE
    token = {"type": "token", "provider": "acme", "token": "at-1"}
    assert step(token) is Step.GONE


def test_refused_login_is_not_refreshed_again() -> None:
    """Until there is another refresh token."""
    refused = with_refusal(ENTRY, "invalid_grant", now=NOW)
    assert step(refused) is Step.REFUSED
    assert step(refused, forced=True) is Step.REFUSED
    assert step(refused | {"refresh": "rt-9"}) is Step.REDEEM


def test_interrupted_refresh_is_not_repeated() -> None:
    """Whoever holds the store's lock and finds an intent knows that its writer is dead, and that the token may be spent."""
    broken = with_intent(ENTRY, by="a", now=NOW)
    assert step(broken) is Step.INTERRUPT
    assert step(broken, forced=True) is Step.INTERRUPT
    assert step(broken, now=NOW + 10**6) is Step.INTERRUPT
    assert step(broken | {"refresh": "rt-9"}) is Step.REDEEM


def test_a_refresh_without_an_answer_is_repeated_when_nothing_is_left_to_lose() -> None:
    """While the access token is good, it could be: a spent token that is shown again may end the whole login."""
    doubtful = with_doubt(ENTRY, by="a", now=NOW)
    assert step(doubtful) is Step.HOLD
    assert step(doubtful, now=NOW + 59.9) is Step.HOLD
    assert step(doubtful, now=NOW + 60) is Step.REDEEM
    assert step(doubtful, forced=True) is Step.REDEEM
    assert step({k: v for k, v in doubtful.items() if k != "expires"}) is Step.REDEEM


# -- what each step leaves ---------------------------------------------------------------------------------------------


def test_an_intent_speaks_of_one_token() -> None:
    """By a digest, which tells it from others and nothing else of it."""
    written = with_intent(ENTRY, by="a", now=NOW)
    assert written == ENTRY | {"pendingRefresh": {"digest": digest(ENTRY), "at": int(NOW * 1000), "by": "a"}}
    assert (pending(written), pending(ENTRY)) == (Pending.SENT, Pending.NOTHING)
    assert pending(written | {"refresh": "rt-9"}) is Pending.NOTHING
    assert pending(with_doubt(written, by="a", now=NOW)) is Pending.UNANSWERED
    assert without_intent(written, by="a") == ENTRY
    assert "rt-1" not in json.dumps(written["pendingRefresh"])


def test_new_tokens_take_the_old_ones_place() -> None:
    """In one piece, with everything that other programs keep there; the marks of the refresh are gone."""
    redeemed = with_tokens(with_intent(ENTRY, by="a", now=NOW), TOKENS, by="a")
    given = {"access": "at-2", "refresh": "rt-2", "expires": int((NOW + 600.5) * 1000), "issuedAt": int(NOW * 1000)}
    assert redeemed == ENTRY | given
    found = profile(redeemed)
    assert (found.secret, found.refresh) == (TOKENS.access, TOKENS.refresh)
    assert (found.issued_at, found.expires_at, found.reauth) == (NOW, NOW + 600.5, "")


def test_without_a_new_refresh_token_the_old_one_is_kept() -> None:
    """And can be redeemed again, for the endpoint has said that it stays good."""
    kept = with_tokens(with_intent(ENTRY, by="a", now=NOW), replace(TOKENS, refresh=None), by="a")
    assert kept["refresh"] == "rt-1"
    assert step(kept, seen="at-2", now=NOW + 600) is Step.REDEEM


def test_whose_login_it_is_is_learned_once() -> None:
    """What the entry says stays, as others wrote it."""
    named = replace(TOKENS, account="u1", email="me@acme.example")
    assert with_tokens(ENTRY, named, by="a") | {"accountId": "u1", "email": "me@acme.example"} == with_tokens(
        ENTRY, named, by="a"
    )
    assert with_tokens(ENTRY | {"email": "Me@Acme.example"}, named, by="a")["email"] == "Me@Acme.example"


def test_a_refusal_is_read_as_one() -> None:
    """By whoever reads the file next."""
    refused = with_refusal(with_intent(ENTRY, by="a", now=NOW), "invalid_grant", now=NOW)
    assert profile(refused).reauth == "invalid_grant"
    assert profile(refused | {"refresh": "rt-9"}).reauth == ""
    assert pending(refused) is Pending.NOTHING


def test_paused_process_reverts_only_its_own_mark() -> None:
    """It comes back late, when another attempt may have been made; neither doubt nor its taking back touches that."""
    others = with_intent(ENTRY, by="b", now=NOW)
    for entry in (others, with_doubt(others, by="b", now=NOW), with_interruption(others, found=others, now=NOW)):
        assert without_intent(entry, by="a") == entry
        assert with_doubt(entry, by="a", now=NOW + 1) == entry
        assert without_intent(entry, by="b") == ENTRY
    assert without_intent(refused := with_refusal(ENTRY, "invalid_grant", now=NOW), by="a") == refused
    stale = ENTRY | {"pendingRefresh": others["pendingRefresh"], "refresh": "rt-9"}
    assert with_doubt(stale, by="a", now=NOW)["pendingRefresh"]["by"] == "a"


def test_new_tokens_clear_every_mark() -> None:
    """Also for one who was taken for dead: they are good, and the only ones."""
    broken = with_intent(ENTRY, by="a", now=NOW)
    interrupted = with_interruption(broken, found=broken, now=NOW)
    assert profile(interrupted).reauth == "interrupted"
    assert with_tokens(interrupted, TOKENS, by="a") == with_tokens(ENTRY, TOKENS, by="a")


@pytest.mark.parametrize("kept", [replace(TOKENS, refresh=None), replace(TOKENS, refresh=SecretValue("rt-1"))])
def test_unchanged_refresh_token_keeps_marks_of_others(kept: Tokens) -> None:
    """T10: a later attempt may have spent that token. Its mark stays, and so does what it knows."""
    others = with_intent(ENTRY, by="b", now=NOW)
    refused = with_refusal(others, "invalid_grant", now=NOW)
    interrupted = with_interruption(others, found=others, now=NOW)
    for entry in (others, with_doubt(others, by="b", now=NOW), interrupted, refused):
        assert with_tokens(entry, kept, by="a") == entry
    own = with_intent(ENTRY, by="a", now=NOW)
    for entry in (own, with_doubt(own, by="a", now=NOW), with_interruption(own, found=own, now=NOW), ENTRY):
        assert step(with_tokens(entry, kept, by="a"), seen="at-2", now=NOW + 600) is Step.REDEEM


def test_finished_refresh_is_not_marked_as_interrupted() -> None:
    """Between the look and the write its writer came back, or a person did."""
    broken = with_intent(ENTRY, by="a", now=NOW)
    kept = with_tokens(broken, replace(TOKENS, refresh=None), by="a")
    for entry in (kept, ENTRY, with_doubt(broken, by="a", now=NOW), with_intent(ENTRY, by="b", now=NOW)):
        assert with_interruption(entry, found=broken, now=NOW) == entry


@pytest.mark.parametrize("mark", [None, [], "x", 5, {}, {"digest": None}, {"digest": ""}, {"digest": "00", "at": "x"}])
def test_foreign_marks_are_ignored(mark: Any) -> None:
    """Nor does one beside an entry without a refresh token."""
    assert pending(ENTRY | {"pendingRefresh": mark}) is Pending.NOTHING
    assert pending({"pendingRefresh": {"digest": ""}}) is Pending.NOTHING


@pytest.mark.parametrize("value", [None, "1800000000000", True, -1, 0, 10**18, [], float("nan")])
def test_unusable_instant_is_ignored(value: Any) -> None:
    """It was not us who wrote it."""
    assert issued_at({"issuedAt": value}) is None


@pytest.mark.parametrize(
    ("profile_id", "agent", "command"),
    [
        ("openai-codex:default", "", "equabot models auth login --provider openai-codex"),
        ("openai-codex:me@x.org", "coder", "equabot models auth login --provider openai-codex --agent coder"),
        ("anthropic:claude-cli", "", "claude setup-token"),
        ("openai-codex:codex-cli", "", "codex login"),
        ("qwen-portal:qwen-cli", "", "qwen"),
    ],
)
def test_how_a_person_logs_in_again(profile_id: str, agent: str, command: str) -> None:
    """With the program that the login belongs to."""
    assert login_command(profile_id, agent) == command


def test_a_login_in_a_secret_is_brought_there() -> None:
    """No command of this machine does that."""
    plain = replace(profile(ENTRY), source="profile_store")
    assert how_to_log_in(plain) == "run `equabot models auth login --provider acme`"
    kept = replace(plain, source="kubernetes ns", origin="Secret ns/llm auth-profiles.json acme:me")
    assert how_to_log_in(kept) == (
        "run `equabot models auth login --provider acme` on your machine, and put the login that it stores into Secret"
        " ns/llm auth-profiles.json acme:me"
    )
    assert how_to_log_in(replace(kept, origin="Secret ns/llm .credentials.json")).startswith("run `claude` on")


texts = st.text(st.characters(codec="utf-8"), max_size=10)
values = st.none() | st.booleans() | st.integers(-5, 2**60) | texts
entries = st.dictionaries(texts | st.sampled_from([*ENTRY, "pendingRefresh", "reauthRequired", "issuedAt"]), values)


@given(entries, st.sampled_from(["intent", "doubt", "nothing", "refusal", "tokens"]))
def test_foreign_fields_are_kept(entry: dict[str, Any], left: str) -> None:
    """Whatever another program keeps in an entry is there after every step."""
    after = {
        "intent": with_intent(entry, by="a", now=NOW),
        "doubt": with_doubt(entry, by="a", now=NOW),
        "nothing": without_intent(entry, by="a"),
        "refusal": with_refusal(entry, "x", now=NOW),
        "tokens": with_tokens(entry, TOKENS, by="a"),
    }[left]
    ours = {"pendingRefresh", "reauthRequired", "issuedAt", "access", "refresh", "expires"}
    assert {k: v for k, v in after.items() if k not in ours} == {k: v for k, v in entry.items() if k not in ours}
