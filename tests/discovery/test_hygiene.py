"""What loading cleans, what it refuses, and that a refusal tells nothing of the value."""

import traceback
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from equabot_broker.discovery.hygiene import SIZE_MAX, Unclean, clean, split_list
from equabot_broker.domain.masking import is_misplaced_key, masked, quoted
from equabot_broker.domain.provider import Catalog, Mode, Provider
from equabot_broker.providers import BUILT_IN, PROVIDERS
from equabot_broker.telemetry.redaction import Redactor

KEY = "q7RkTz0-JwXv9_LmPb83"
ANTHROPIC_KEY = "sk-ant-api03-" + "k9" * 40
ANTHROPIC_TOKEN = "sk-ant-oat01-" + "t7" * 40


def cleaned(text: str | bytes, provider: str = "openai", mode: Mode = Mode.API_KEY) -> str:
    return clean(text, provider=PROVIDERS[provider], mode=mode, catalog=BUILT_IN).reveal()


def refusal(text: str | bytes, provider: str = "openai", mode: Mode = Mode.API_KEY) -> str:
    with pytest.raises(Unclean) as caught:
        cleaned(text, provider, mode)
    assert str(caught.value) == caught.value.reason
    assert caught.value.__cause__ is caught.value.__context__ is None, "a chained error may hold the text"
    return caught.value.reason


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"{KEY}\n",
        f"{KEY}\r\n",
        f"  {KEY}\t ",
        f"\ufeff{KEY}",
        f"\ufeff {KEY}\n",
        b"\xef\xbb\xbf" + KEY.encode(),
        KEY.encode() + b"\n",
        f'"{KEY}"',
        f"'{KEY}'\n",
        f'" {KEY} "',
        f"Bearer {KEY}",
        f"bearer  {KEY}",
        f'"Bearer {KEY}"',
        f'export OPENAI_API_KEY="{KEY}"',
        f"export  anything={KEY}\n",
        f"OPENAI_API_KEY={KEY}",
        f"OPENAI_API_KEY='{KEY}'\n",
        f"NAME=Bearer {KEY}",
        f"\u00a0{KEY}\u00a0",
    ],
)
def test_what_is_safely_clean_is_cleaned(text: str | bytes) -> None:
    """Whitespace, one newline, BOM, quotes, `Bearer `, `export NAME="…"`: none of it belongs to the key."""
    assert cleaned(text) == KEY


@pytest.mark.parametrize(
    "key", ["QUJDREVGR0hJSktMTU5P==", "QUJDREVGR0g=", "abcd=efgh", "ABCDEFG==", "key/with+signs=", "Bearerish"]
)
def test_a_key_that_only_looks_wrapped_stays_whole(key: str) -> None:
    """Base64 ends in `=`; that makes it no assignment."""
    assert cleaned(key) == key


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (b"", "is empty"),
        (" \r\n\t", "is empty"),
        ("\ufeff", "is empty"),
        ('""', "is empty"),
        ("Bearer ", "is empty"),
        ("export OPENAI_API_KEY=", "is empty"),
        ("OPENAI_API_KEY=", "is empty"),
        ("OPENAI_API_KEY=''", "is empty"),
        (f"{KEY}\x00", "has a control character inside"),
        (f"{KEY[:5]}\x1b[31m{KEY[5:]}", "has a control character inside"),
        (f"{KEY[:5]}\x7f{KEY[5:]}", "has a control character inside"),
        (f"{KEY[:5]}\x85{KEY[5:]}", "has a control character inside"),
        (f"\x1f{KEY}", "has a control character inside"),
        (f"{KEY}\n{KEY}", "has more than one line: keep the value alone"),
        (f"{KEY}\r\nX-Injected: 1", "has more than one line: keep the value alone"),
        (f"{KEY}\rX", "has more than one line: keep the value alone"),
        (f"{KEY[:5]} {KEY[5:]}", "has whitespace inside: keep the value alone"),
        (f"{KEY} # the old one", "has whitespace inside: keep the value alone"),
        (f"{KEY[:5]}é{KEY[5:]}", "has characters that are not ASCII, which no header may carry"),
        (f"{KEY}\u200b", "has characters that are not ASCII, which no header may carry"),
        (f'"{KEY}', "has a quote without its partner"),
        (f"{KEY}'", "has a quote without its partner"),
        (b"\xff\xfe" + KEY.encode("utf-16-le"), "is binary, not UTF-8 text"),
        (bytes(range(128, 256)), "is binary, not UTF-8 text"),
        (f"{KEY}\udcff", "is binary, not UTF-8 text"),
        ("k" * (SIZE_MAX + 1), "is longer than 64 KiB, so it is not a key"),
        (b"k" * 10_000_000, "is longer than 64 KiB, so it is not a key"),
        ('"' * 40_000, "is wrapped in too many quotes and prefixes"),
    ],
)
def test_the_rest_is_refused(text: str | bytes, reason: str) -> None:
    """Anything that cleaning would have to guess at is no credential."""
    assert refusal(text) == reason


def test_the_longest_value_is_accepted() -> None:
    """64 KiB is the limit, not past it."""
    assert cleaned("k" * SIZE_MAX) == "k" * SIZE_MAX


PLACEHOLDERS = [
    "changeme",
    "CHANGE_ME",
    "change-this",
    "replaceme",
    "REPLACE_WITH_YOUR_KEY",
    "todo",
    "TODO",
    "tbd",
    "FIXME",
    "placeholder",
    "null",
    "None",
    "undefined",
    "${OPENAI_API_KEY}",
    "${OPENAI_API_KEY:-}",
    "$OPENAI_API_KEY",
    "$(cat key)",
    "{{ .Values.key }}",
    "<your-key>",
    "<OPENAI_API_KEY>",
    "your-api-key-here",
    "YOUR_API_KEY",
    "your_openai_key",
    "sk-your-key-here",
    "sk-ant-your-api-key",
    "yourapikey",
    "paste-your-key-here",
    "insert-key-here",
    "api-key",
    "API_KEY_HERE",
    "xxx",
    "xxxxxxxxxxxx",
    "XXXX",
    "sk-xxxxxxxxxxxxxxxx",
    "sk-ant-api03-xxxx",
    "...",
    "sk-...",
    "sk-ant-...",
    "sk-ant-…",
    "****",
    "%OPENAI_API_KEY%",
    "[redacted]",
    '"changeme"',
    "OPENAI_API_KEY=changeme",
    "your api key here",
]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_placeholders_are_refused(text: str) -> None:
    """What a template leaves to be filled in would only be found out by the provider."""
    assert refusal(text) == "is a placeholder: put the real value there"


@pytest.mark.parametrize(
    "text", ["test", "dummy-key", "my-secret", "first-key", "k", "sk-test-1", "x" * 64, "yourselfless", "$ecret"]
)
def test_a_short_or_odd_key_is_still_a_key(text: str) -> None:
    """Private gateways take whatever their owner chose."""
    mine = replace(PROVIDERS["openai"], form=None)
    assert clean(text, provider=mine, mode=Mode.API_KEY, catalog=BUILT_IN).reveal() == text
    assert cleaned(text, "litellm") == text


def test_an_oauth_token_is_no_api_key() -> None:
    """It would be sent in the wrong header; the refusal says where it belongs."""
    reason = "is an OAuth token, not an API key: put it in ANTHROPIC_OAUTH_TOKEN, or give its profile mode: token"
    assert refusal(ANTHROPIC_TOKEN, "anthropic") == reason
    assert refusal("sk-ant-ort01-abcdef", "anthropic") == reason
    assert cleaned(ANTHROPIC_TOKEN, "anthropic", Mode.TOKEN) == ANTHROPIC_TOKEN
    assert cleaned(ANTHROPIC_TOKEN, "anthropic", Mode.OAUTH) == ANTHROPIC_TOKEN


def test_an_api_key_is_no_token() -> None:
    """The other way round as well."""
    reason = "is an API key, not an OAuth token: put it in ANTHROPIC_API_KEY, or give its profile mode: api_key"
    assert refusal(ANTHROPIC_KEY, "anthropic", Mode.TOKEN) == reason
    assert cleaned(ANTHROPIC_KEY, "anthropic") == ANTHROPIC_KEY


def test_a_vendor_that_has_keys_alone_takes_one_for_a_token() -> None:
    """A request carries both alike, so nothing goes wrong: the seed's own page pastes an OpenRouter key as a token."""
    assert cleaned("sk-or-v1-0123456789", "openrouter", Mode.TOKEN) == "sk-or-v1-0123456789"
    assert refusal("sk-or-v1-0123456789", "openrouter", Mode.OAUTH).startswith("is an API key, not an OAuth token")


@pytest.mark.parametrize("mode", [Mode.API_KEY, Mode.TOKEN])
def test_what_no_prefix_tells_is_accepted(mode: Mode) -> None:
    """A key without a known prefix, or with one that says whose it is but not what, gets the benefit of the doubt."""
    assert cleaned("sk-ant-something", "anthropic", mode) == "sk-ant-something"
    assert cleaned("opaque-session", "anthropic", mode) == "opaque-session"
    assert cleaned("sk-plain", "anthropic", mode) == "sk-plain"


@pytest.mark.parametrize(
    ("text", "declared", "owner"),
    [
        (ANTHROPIC_KEY, "openai", "anthropic"),
        (ANTHROPIC_TOKEN, "openai", "anthropic"),
        ("sk-or-v1-0123456789", "openai", "openrouter"),
        ("sk-or-v1-0123456789", "anthropic", "openrouter"),
        ("sk-proj-0123456789", "deepseek", "openai"),
        ("gsk_0123456789", "openai", "groq"),
        ("xai-0123456789", "openai", "xai"),
        ("AIza0123456789", "openai", "google"),
        ("hf_0123456789", "openai", "huggingface"),
        ("pplx-0123456789", "openai", "perplexity"),
        ("ghp_0123456789", "openai", "github-copilot"),
    ],
)
def test_a_key_of_another_provider_is_refused(text: str, declared: str, owner: str) -> None:
    """The longest prefix tells whose it is: sk-ant- and sk-or- are sk- too."""
    assert refusal(text, declared) == f"is a credential of {owner}, not of {declared}: declare it there"
    assert cleaned(text, owner, Mode.TOKEN if text == ANTHROPIC_TOKEN else Mode.API_KEY) == text


def test_plain_sk_belongs_to_everyone() -> None:
    """Many vendors hand out sk-…: it proves nothing."""
    for provider in ("openai", "deepseek", "moonshot", "litellm", "openrouter"):
        assert cleaned("sk-0123456789abcdef", provider) == "sk-0123456789abcdef"


def test_not_even_a_public_prefix_is_told() -> None:
    """Where the owner's name begins like the key, the name is left out."""
    assert refusal("github_pat_0123456789") == "is a credential of another provider, not of openai: declare it there"


def test_a_provider_of_the_configuration_has_its_say() -> None:
    """Prefixes come from the catalog in use, and a provider need not be in it."""
    acme = Provider(id="corp", key_prefixes=("acme-",))
    catalog = Catalog(MappingProxyType({**PROVIDERS, "corp": acme}))
    with pytest.raises(Unclean, match="credential of corp"):
        clean("acme-123", provider=PROVIDERS["openai"], mode=Mode.API_KEY, catalog=catalog)
    assert clean("acme-123", provider=acme, mode=Mode.API_KEY, catalog=BUILT_IN).reveal() == "acme-123"
    shared = replace(acme, id="other")
    both = Catalog({"corp": acme, "other": shared})
    assert clean("acme-123", provider=shared, mode=Mode.API_KEY, catalog=both).reveal() == "acme-123"


def test_a_list_is_split_on_space_comma_and_semicolon() -> None:
    """As the seed has it; wrapping around the whole list goes, nothing else is judged here."""
    assert split_list("a, b;c  d\ne,") == ["a", "b", "c", "d", "e"]
    assert split_list(b'export OPENAI_API_KEYS="a b"\n') == ["a", "b"]
    assert split_list(" ,; ") == []
    with pytest.raises(Unclean, match="binary"):
        split_list(b"\xff")


WRAPPINGS = ["{}", "{}\n", '"{}"', "'{}'", "Bearer {}", "export A_VAR={}", 'A_VAR="{}"', " {} ", "\ufeff{}", "`{}`"]
pieces = st.sampled_from(["Bearer ", "export A=", "A_B=", '"', "'", " ", "\n", "\ufeff", "k", "=", "K9"])
anything = st.one_of(
    st.text(max_size=60),
    st.binary(max_size=60),
    st.text(alphabet="ab=\"'` \n\ufeff", max_size=12),
    st.lists(pieces, max_size=9).map("".join),
)
providers = st.sampled_from(["openai", "anthropic", "google", "groq"])
modes = st.sampled_from([Mode.API_KEY, Mode.TOKEN])


@given(anything, providers, modes)
@example("A_B=A_B=k", "openai", Mode.API_KEY)
@example("Bearer Bearer", "openai", Mode.API_KEY)
def test_clean_is_idempotent_and_fit_for_a_header(text: str | bytes, provider: str, mode: Mode) -> None:
    """What comes out would pass again unchanged, and is visible ASCII whatever went in."""
    try:
        value = cleaned(text, provider, mode)
    except Unclean:
        return
    assert value
    assert all("\x21" <= character <= "\x7e" for character in value)
    assert cleaned(value, provider, mode) == value
    assert cleaned(value.encode(), provider, mode) == value


@pytest.mark.parametrize(
    ("name", "is_key", "shown"),
    [
        (ANTHROPIC_KEY, True, False),
        (f"anthropic:{ANTHROPIC_TOKEN}", True, False),
        ("ghp_" + "a1B2" * 9, True, False),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", True, False),
        ("x8KdR2mQ0vTn5LpZ7bHc", False, False),  # no vendor's that we know of, but not a name either
        ("sk-something", False, False),
        ("0198c0ffee1234567890abcdef123456", False, False),  # a lease id
        ("anthropic:me@example.com", False, True),
        ("task-2026-11-22-retry-7", False, True),
        ("claude-sonnet-4-5-20250929", False, True),
        ("my-sk-learn-project", False, False),
        ("x" * 80, False, True),
    ],
)
def test_a_name_that_may_be_a_key_is_not_repeated(name: str, *, is_key: bool, shown: bool) -> None:
    """Refused where it surely is one; kept out of messages where it only may be. Ordinary names are quoted."""
    assert (is_misplaced_key(name), quoted(name) == repr(name)) == (is_key, shown)


PREFIXES = sorted({prefix for vendor in PROVIDERS.values() for prefix in (*vendor.key_prefixes, *vendor.token_prefixes)})


@pytest.mark.parametrize("prefix", [*PREFIXES, "eqb_", "glpat-", "xoxb-", "npm_", "AKIA", "sk_live_", "lin_api_"])
@pytest.mark.parametrize("name", ["{}", "openai:{}", "OPENAI_API_KEY_{}", "team/{}", "anthropic:env-{}"])
def test_names_and_logs_know_the_same_keys(prefix: str, name: str) -> None:
    """S19: whatever a vendor of ours hands out is no name, also in lower case, and the log masks what is no name."""
    key = name.format(f"{prefix}Q7rkTz0Jw2Xv9LmPb83n")
    for shown in (key, key.lower()):
        assert is_misplaced_key(shown)
        assert "7rktz0jw" not in masked(f"/run/{shown}/x").lower()
        assert "7rktz0jw" not in Redactor().text(f"profile {shown} is new").lower()


def test_a_name_of_any_length_is_looked_at_in_no_time() -> None:
    """S24: the cost is that of its length."""
    assert not is_misplaced_key("sk-" + "x" * 4_000_000)
    assert is_misplaced_key("sk-" + "x" * 4_000_000 + "1")


def test_a_name_that_is_quoted_is_cut_but_never_within_a_key() -> None:
    """A key that begins before the cut hides the name, however little of it would show."""
    assert quoted("x" * 1_000_000) == repr("x" * 80)
    assert "k9" not in quoted("name " * 14 + ANTHROPIC_KEY)


# Neither the letters of a sentence nor those of a name: a piece of it in a message would be no accident.
opaque = st.text(alphabet="QZJ0123456789+/_~", min_size=8, max_size=40)
OTHERS = ["sk-ant-oat01-{0}", "sk-or-{0}", "ghp_{0}", "github_pat_{0}", "AIza{0}"]
SPOILERS = ["{0}\x00{0}", "{0}\n{0}", "{0} {0}", "{0}é", '"{0}', "${{{0}}}", "<{0}>", "{0}\udc80", *OTHERS]
spoilers = st.sampled_from(SPOILERS)


@given(opaque, spoilers, st.sampled_from(WRAPPINGS), providers)
def test_a_refusal_holds_nothing_of_the_value(secret: str, spoiler: str, wrapping: str, provider: str) -> None:
    """Not four characters in a row, neither in the message nor in a traceback of it."""
    text = wrapping.format(spoiler.format(secret))
    try:
        value = cleaned(text, provider)
    except Unclean as unclean:
        told = "".join(traceback.format_exception_only(unclean)) + repr(unclean)
        assert not [piece for i in range(len(text) - 3) if (piece := text[i : i + 4]) in told and piece.strip()]
    else:
        assert value == spoiler.format(secret)
