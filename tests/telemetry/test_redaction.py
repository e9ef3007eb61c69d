"""Redaction: no secret leaves, whole or in pieces; what is not a secret stays readable."""

import json
import string
from dataclasses import dataclass

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from equabot.broker.v1.admin_pb2 import LeaseSummary, ListLeasesResponse
from equabot.broker.v1.broker_pb2 import Lease
from equabot_broker.domain.errors import LeaseNotFound
from equabot_broker.domain.secret_value import SecretValue
from equabot_broker.telemetry.redaction import MASK, PIECE, Redactor

KEYS = {
    "anthropic": "sk-ant-api03-pT6bZ_9xQw3-Lm5nRk8vY2cJ7hGf4dSaEoUi1B0tNxAA",
    "openai": "sk-proj-Zx81kdQ0Nn3LmPq7RsTuVwXyZa2b4c6d8e",
    "openrouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "groq": "gsk_Ab3De5Gh7Jk9Mn1Pq3St5Vw7Yz",
    "google": "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "lease token": "eqb_q83v0b7x9Zk2Lm4Np6Rs8Tu0Vw2Xy4Za6Bc8De0Fg2A",
    "google oauth": "ya29.a0AfB_byC1d2E3f4G5h6I7j8",
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345",
    "github": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github oauth": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
    "github fine": "github_pat_11ABCDEFG0123456789_abcdefghijklmnop",
    "jwt": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJlLWJ5dGVz",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
@pytest.mark.parametrize(
    "around", ["{}", "the key {} was refused", "x-api-key: {}", "['{}']", 'key="{}"', "https://host/v1?k={}&x=1"]
)
def test_what_looks_like_a_key_is_masked(key: str, around: str) -> None:
    """Also when no source holds it: pasted into a path, sent by a provider in an error, of yesterday."""
    shown = Redactor().text(around.format(key))
    assert key not in shown
    assert MASK in shown


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_a_key_that_begins_like_a_live_one_is_masked_whole(key: str) -> None:
    """That of before a rotation: what both have in common does not hide from the search that the rest is a key as well."""
    live = [SecretValue(key[:16] + "0therR3st" * 4)]
    assert Redactor(lambda: live).text(f"the key {key}, and {live[0].reveal()}") == f"the key {MASK}, and {MASK}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: Bearer [redacted]"),
        ("authorization=bearer  AbC123/+=xyz", "authorization=bearer  [redacted]"),
        ("api_key = 'q8Zr5Tn2Xv9Lw4Km'", "api_key = '[redacted]'"),
        ('{"access_token": "q8Zr5Tn2Xv9Lw4Km"}', '{"access_token": "[redacted]"}'),
        ("client_secret=q8Zr5Tn2Xv9Lw4Km&scope=all", "client_secret=[redacted]&scope=all"),
        ("PASSWORD=q8Zr5Tn2Xv9Lw4Km", "PASSWORD=[redacted]"),
    ],
)
def test_a_value_named_like_a_secret_is_masked_and_its_name_stays(text: str, shown: str) -> None:
    """Whoever reads the log still sees what kind of thing was there."""
    assert Redactor().text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "granted anthropic:default to agent main for 900 s",
        "source mounted /run/secrets/equabot: permission denied",
        "set ANTHROPIC_API_KEY in the environment or in ~/.equabot/.env",
        "profile github-copilot:gh is rejected: replace the credential",
        "key: ANTHROPIC_API_KEY, token=main, secret llm-credentials-for-agents",
        "https://platform.claude.com/v1/oauth/token answered 503",
        "lease 3f2b8c1e-7d4a-4b7e-9a51-0c6f8e2d1b3a expired 3 s ago",
        "task-force risk-management disk-0123456789",
        "the bearer of this",
    ],
)
def test_what_is_not_a_secret_stays(text: str) -> None:
    """A log that hides what it is about is of no use: ids, paths, names of variables, lease ids."""
    assert Redactor().text(text) == text


# -- live values -------------------------------------------------------------------------------------------------------

alphabet = string.ascii_letters + string.digits + "-_+/=.~!$%&\"'\\{}<>,;: äß漢🔑"
secrets = st.text(alphabet, min_size=PIECE, max_size=120)
texts = st.text(max_size=60)


def live(*values: str) -> Redactor:
    kept = tuple(map(SecretValue, values))
    return Redactor(lambda: kept)


def pieces(secret: str) -> set[str]:
    return {secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)}


def assert_hidden(secret: str, shown: str, *, known: str) -> None:
    """No piece of the secret is in what is shown, but for pieces that `known` text (the mask, names) holds by itself."""
    leaked = {piece for piece in pieces(secret) if piece in shown and piece not in known}
    assert not leaked, f"{leaked} of {secret!r} in {shown!r}"


@given(secret=secrets, others=st.lists(secrets, max_size=5), before=texts, after=texts, data=st.data())
@example(secret="aaaaaaaaaaaaaaaa", others=[], before="a", after="aaaa", data=None)
def test_no_piece_of_a_live_value_comes_out(
    secret: str, others: list[str], before: str, after: str, data: st.DataObject | None
) -> None:
    """Whole, or any run of eight characters or more of it, wherever in a text it stands."""
    start = data.draw(st.integers(0, len(secret) - PIECE)) if data else 0
    end = data.draw(st.integers(start + PIECE, len(secret))) if data else len(secret)
    shown = live(secret, *others).text(f"{before}{secret[start:end]}{after}")
    assert_hidden(secret, shown, known=MASK)


nested = st.recursive(
    st.sampled_from(["%", "plain text", 7, 1.5, None, True]) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(secret=secrets, value=nested, depth=st.integers(0, 4))
def test_no_piece_comes_out_of_nested_values(secret: str, value: object, depth: int) -> None:
    """Lists, tuples, sets and mappings are searched, keys included, in whatever way they print inside."""
    held: object = secret
    for level in range(depth):
        held = [{"deep": held}, (held, value), {secret: value, "x": held}, [value, held]][level % 4]
    shown = json.dumps(live(secret).clean({"value": held, "beside": value}), ensure_ascii=False)
    plain = json.dumps({"value": "deep", "beside": value}, ensure_ascii=False, default=str)
    assume(not any(piece in plain for piece in pieces(secret)))
    assert_hidden(secret, shown, known=MASK + plain)


@dataclass
class Holder:
    value: str


@given(secret=secrets)
def test_a_value_that_was_quoted_on_the_way_is_found(secret: str) -> None:
    """As `repr`, JSON and URLs write it: an object that prints itself with its value in it."""
    assume(not any(piece in "Holder(value=''" + MASK for piece in pieces(secret)))
    redactor = live(secret)
    assert_hidden(secret, str(redactor.clean(Holder(secret))), known="Holder(value='')" + MASK)
    written = json.dumps(secret)[1:-1]
    assert written not in redactor.text(f'{{"key": {json.dumps(secret)}}}')


def test_short_values_are_masked_whole() -> None:
    """From four characters on; shorter ones would blot out half of every line."""
    redactor = live("k3y!", "abc", "p4ssw0rd")
    assert redactor.text("abc k3y! p4ssw0rd") == f"abc {MASK} {MASK}"


def test_neighbouring_pieces_become_one_mask() -> None:
    """What is hidden does not tell how it was put together."""
    redactor = live("0123456789abcdefghij")
    assert redactor.text("<0123456789abcdefghij>") == f"<{MASK}>"
    assert redactor.text("<23456789ab>") == f"<{MASK}>"
    assert redactor.text("<0123456789abc01234567>") == f"<{MASK}>"
    assert redactor.text("<0123456>") == "<0123456>"


def test_a_rotated_value_is_known_at_once() -> None:
    """The index follows the values; the old one is no longer ours to hide."""
    values = (SecretValue("Monday's value"),)
    redactor = Redactor(lambda: values)
    assert redactor.text("Monday's value, Tuesday: another") == f"{MASK}, Tuesday: another"
    values = (SecretValue("Tuesday: another"),)
    assert redactor.text("Monday's value, Tuesday: another") == f"Monday's value, {MASK}"
    redactor.watch(lambda: (SecretValue("Wednesday"),))
    assert redactor.text("Wednesday") == MASK


def test_thousands_of_values_do_not_make_a_line_slow() -> None:
    """The values are looked up, not tried one after another: a line costs about the same with one and with ten thousand."""
    looked: list[int] = []

    class Counting(tuple[SecretValue, ...]):
        __slots__ = ()

        def __iter__(self):  # type: ignore[no-untyped-def]
            looked.append(len(self))
            return super().__iter__()

    values = Counting(SecretValue(f"{n:06}-{n * 7919:012x}-{n * 104729:016x}") for n in range(10_000))
    redactor = Redactor(lambda: values)
    for n in range(500):
        assert redactor.text(f"line {n} says nothing of note about profile openai:{n}").startswith("line")
    assert redactor.text(values[5000].reveal()) == MASK
    assert looked == [10_000], "indexed once, and not gone through for any line"


# -- what may be said of things ----------------------------------------------------------------------------------------


def test_numbers_and_names_stay_what_they_are() -> None:
    """A field that was a number is a number in the log."""
    value = {"n": 1, "f": 1.5, "b": True, "none": None, "ids": ("a:b", "c:d"), "inf": float("inf")}
    assert Redactor().clean(value) == {"n": 1, "f": 1.5, "b": True, "none": None, "ids": ["a:b", "c:d"], "inf": "inf"}


def test_foreign_exceptions_say_only_what_they_are() -> None:
    """Their text may hold anything: a header, a URL, a line of a file. Ours and the system's are known to be clean."""
    clean = Redactor().clean
    assert clean(ValueError("secret inside")) == "<ValueError>"
    assert clean(LeaseNotFound("no such lease: acquire another")) == "no such lease: acquire another"
    assert clean(FileNotFoundError(2, "anything", "/path/with/secret")) == "<FileNotFoundError: No such file or directory>"


def test_messages_bytes_and_secrets_are_named_not_printed() -> None:
    """Python prints a protobuf message with its secrets, whatever its options say."""
    message = Lease(id="l1", secret="not-shown", headers={"x-api-key": "not-shown"})
    event = ListLeasesResponse(leases=[LeaseSummary(id="not-shown")])
    clean = Redactor().clean
    assert clean(message) == "<Lease>"
    assert clean(b"not-shown") == "<9 bytes>"
    assert clean(SecretValue("not-shown")) == "SecretValue(hidden)"
    assert "not-shown" not in str(clean({"map": message.headers, "repeated": event.leases, "list": [message]}))


def test_what_does_not_print_does_not_stop_the_log() -> None:
    """A broken `__str__` is said to be one."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("sk-secret")

    assert Redactor().clean(Broken()) == "<Broken: its text raises RuntimeError>"


def test_a_field_named_like_a_secret_is_masked() -> None:
    """Its value looks harmless alone, and not with its name."""
    assert Redactor().clean({"refresh_token": "q8Zr5Tn2Xv9Lw4Km", "lease": "q8Zr5Tn2Xv9Lw4Km"}) == {
        "refresh_token": MASK, "lease": "q8Zr5Tn2Xv9Lw4Km",
    }  # fmt: skip


def test_enormous_values_are_cut() -> None:
    """Ten megabytes in a log line help nobody, and looking through them would hold everybody up."""
    shown = Redactor().clean({"text": "x" * 10_000_000, "list": range(10_000_000)})
    assert isinstance(shown, dict)
    assert len(json.dumps(shown)) < 20_000
    assert "9983616 more" in shown["text"]
    circular: list[object] = []
    circular.append(circular)
    assert len(str(Redactor().clean(circular))) < 100


@pytest.mark.parametrize("text", ["key=" * 4000, "a" * 16_000, "bearer " * 2000, "eyJ" + "a." * 8000, "key=" + "/" * 16_000])
def test_no_text_takes_long(text: str) -> None:
    """The patterns are linear: a hostile text cannot make them backtrack. (The deadline is the test's own.)"""
    live("0123456789abcdef").text(text)
