"""The store's text: parsed, changed, and written back with nothing lost."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.discovery.hygiene import ENTRIES_MAX
from equabot_broker.domain.cooldowns import Usage
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.formats.auth_document import (
    AuthDocument,
    entry_of_key,
    entry_of_oauth,
    entry_of_token,
    fingerprint,
    parse,
    serialize,
    with_entry,
    with_fields,
    with_order,
    without_entry,
)
from equabot_broker.formats.auth_usage import with_usage
from equabot_broker.parsing.untrusted_json import Malformed, decode

KEY = {"type": "api_key", "provider": "openai", "key": "k1"}

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
IDS = st.sampled_from(["anthropic:default", "anthropic:b", "openai:default", "no-colon", "z.ai:x", "é:ü"])
ENTRIES = st.dictionaries(st.sampled_from(["type", "provider", "key", "token", "access", "expires", "note", "x-1"]), ANY_JSON)
STORES = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional={
        "profiles": st.none() | st.dictionaries(IDS, ENTRIES | ANY_JSON, max_size=4),
        "order": st.none() | st.dictionaries(IDS, st.lists(IDS, max_size=3) | ANY_JSON, max_size=3),
        "lastGood": st.none() | st.dictionaries(IDS, IDS, max_size=3),
        "usageStats": st.none() | st.dictionaries(IDS, st.dictionaries(st.text(), ANY_JSON, max_size=3) | ANY_JSON, max_size=3),
        "futureField": ANY_JSON,
    },
)
EDITS: list[tuple[Callable[[AuthDocument], AuthDocument], tuple[str, ...]]] = [
    (lambda d: d, ()),
    (lambda d: with_order(d, "anthropic:b", ["anthropic:default"]), ("order", "anthropic:b")),
    (lambda d: with_order(d, "anthropic:b", []), ("order", "anthropic:b")),
    (lambda d: with_entry(d, "openai:default", KEY), ("profiles", "openai:default")),
    (lambda d: without_entry(d, "openai:never"), ()),
    (lambda d: with_usage(d, {"openai:default": Usage(last_used=1.8e9)}), ("usageStats", "openai:default")),
]


@given(raw=STORES, edit=st.sampled_from(EDITS), indent=st.sampled_from([None, 2, "\t"]))
def test_an_edit_changes_what_it_is_for_and_nothing_else(
    raw: dict[str, Any], edit: tuple[Callable[[AuthDocument], AuthDocument], tuple[str, ...]], indent: Any
) -> None:
    """Whatever else is in the file, known or not, is in it afterwards; and so it is for the program that wrote it."""
    change, touched = edit
    document = parse(json.dumps(raw, indent=indent).encode())
    before = json.loads(json.dumps(raw))
    written = json.loads(serialize(change(document)))
    assert document.raw == before, "the edit changed its argument"
    assert parse(serialize(change(document))) == change(document)
    if touched:
        section, name = touched
        for store in (before, written):
            held = store.pop(section, None) or {}
            held.pop(name, None)
            if held:
                store[section] = held
    assert {k: v for k, v in written.items() if v or k in before} == before | {k: v for k, v in written.items() if k in touched}


@given(text=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_store_or_malformed(text: bytes) -> None:
    """And nothing of them is in the error, or behind it."""
    try:
        found: AuthDocument | Malformed = parse(text)
    except Malformed as malformed:
        found = malformed
    if isinstance(found, Malformed):
        assert found.__context__ is None
        assert found.offset is None or 0 <= found.offset <= len(text)


@given(raw=STORES, cut=st.integers(1, 400))
def test_a_store_that_breaks_off_is_malformed(raw: dict[str, Any], cut: int) -> None:
    """Wherever it does: half a store is never taken for a small one."""
    text = json.dumps(raw).encode()
    with pytest.raises(Malformed):
        parse(text[: max(len(text) - cut, 0)])


@pytest.mark.parametrize("version", [1, 1.0, None])
def test_versions_that_are_known(version: object) -> None:
    """OpenClaw reads a store without a version as version 1."""
    raw = {"profiles": {}} if version is None else {"version": version, "profiles": {}}
    assert parse(json.dumps(raw).encode()).raw == raw


def test_what_is_not_json_may_be_bounded_closer() -> None:
    """Files of other tools are small."""
    with pytest.raises(Malformed, match="larger than 0 MiB"):
        decode(b" " * 100 + b"1", largest=100)


def test_a_store_of_too_much_is_malformed() -> None:
    """S24: profiles, orders and objects are counted; what may be is not refused."""
    profiles = {f"openai:{n}": {"type": "api_key", "key": "k"} for n in range(ENTRIES_MAX)}
    assert len(parse(json.dumps({"profiles": profiles}).encode()).entries) == ENTRIES_MAX
    with pytest.raises(Malformed, match="it holds more than 1,000 profiles"):
        parse(json.dumps({"profiles": profiles | {"openai:more": {}}}).encode())
    orders: list[dict[str, list[str]]] = [
        {"openai": ["x"] * 10_001},
        {f"p{n}": [] for n in range(10_001)},
        {f"p{n}": ["x"] for n in range(5_001)},
    ]
    for order in orders:
        with pytest.raises(Malformed, match="its orders name more than 10,000 profiles"):
            parse(json.dumps({"order": order}).encode())
    for many in (b"{},", b"[],"):
        with pytest.raises(Malformed, match="it has more than 20,000 objects and lists"):
            decode(b"[" + many * 20_000 + b"1]")


def test_a_credential_in_the_place_of_another_takes_nothing_of_it_over() -> None:
    """Neither its expiry nor whose login it was nor what is noted of its refresh; fields that no program here knows stay."""
    before = entry_of_oauth(
        "anthropic", SecretValue("a1"), SecretValue("r1"), expires_at=5.5, client_id="c", account="acc", email="me@x.org"
    ) | {"pendingRefresh": {"digest": "d", "at": 1}, "reauthRequired": {"code": "x"}, "enterpriseUrl": "u", "note": 1}
    assert before["expires"] == 5500
    document = with_entry(AuthDocument(), "anthropic:x", before)
    after = with_entry(document, "anthropic:x", entry_of_oauth("anthropic", SecretValue("a2"), None, expires_at=6))
    assert after.entries["anthropic:x"] == {
        "type": "oauth", "provider": "anthropic", "access": "a2", "expires": 6000, "enterpriseUrl": "u", "note": 1,
    }  # fmt: skip
    token = with_entry(document, "anthropic:x", entry_of_token("anthropic", SecretValue("t"), expires_at=None))
    assert token.entries["anthropic:x"] == {"type": "token", "provider": "anthropic", "token": "t"}


def test_single_fields_are_changed_and_taken_away() -> None:
    """As a refresh does; the rest of the entry stays, and a field that was null stays null."""
    document = with_entry(AuthDocument(), "openai:x", KEY | {"expires": 1, "note": None})
    changed = with_fields(document, "openai:x", {"key": "k2", "expires": None, "never": None})
    assert changed.entries["openai:x"] == {"type": "api_key", "provider": "openai", "key": "k2", "note": None}
    with pytest.raises(KeyError):
        with_fields(document, "openai:y", {})


def test_a_removed_profile_leaves_no_trace() -> None:
    """Its usage, its place in orders, its name as the last that worked; an order of it alone ends."""
    raw = {
        "version": 1,
        "profiles": {"openai:x": KEY, "openai:y": KEY},
        "order": {"openai": ["openai:x", "openai:y"], "zai": ["openai:x"], "odd": 5},
        "lastGood": {"openai": "openai:x", "zai": "zai:z"},
        "usageStats": {"openai:x": {"lastUsed": 1}, "openai:y": {"lastUsed": 2}},
    }
    assert without_entry(AuthDocument(raw), "openai:x").raw == {
        "version": 1,
        "profiles": {"openai:y": KEY},
        "order": {"openai": ["openai:y"], "odd": 5},
        "lastGood": {"zai": "zai:z"},
        "usageStats": {"openai:y": {"lastUsed": 2}},
    }


def test_entries_as_the_seeds_system_writes_them() -> None:
    """Names and units of its file."""
    assert entry_of_key("openai", SecretValue("k"), email="me@x.org") == {
        "type": "api_key", "provider": "openai", "key": "k", "email": "me@x.org",
    }  # fmt: skip
    assert entry_of_token("anthropic", SecretValue("t"), expires_at=1.5) == {
        "type": "token", "provider": "anthropic", "token": "t", "expires": 1500,
    }  # fmt: skip
    assert entry_of_oauth("chutes", SecretValue("a"), SecretValue("r"), expires_at=2, client_id="c") == {
        "type": "oauth", "provider": "chutes", "access": "a", "refresh": "r", "expires": 2000, "clientId": "c",
    }  # fmt: skip


def test_a_fingerprint_distinguishes_tokens_and_reveals_nothing() -> None:
    """16 hex digits; any text has one."""
    assert fingerprint(SecretValue("r1")) == fingerprint(SecretValue("r1")) != fingerprint(SecretValue("r2"))
    assert len(fingerprint(SecretValue("\ud83d"))) == 16


def test_a_document_shows_nothing_of_itself() -> None:
    """It holds every secret of an agent."""
    assert "k1" not in repr(with_entry(AuthDocument(), "openai:x", KEY))
