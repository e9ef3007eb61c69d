"""What of a request goes on to a provider: by name, and without a credential of the agent's own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equabot_broker.domain.provider import Provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.providers.forwarding import COMMON
from equabot_broker.routing.forwarding import Credentials, Names, may_hold_credential, parameters, shown

CREDENTIALS = Credentials(PROVIDERS.values())
REVIEWED = {
    "sec-websocket-key": "a random number of the handshake (RFC 6455)",
    "idempotency-key": "names an attempt, so that a retry is no second order",
    "x-idempotency-key": "as idempotency-key",
    "page_token": "names a page of a list",
    "pagetoken": "names a page of a list",
    "next_page_token": "names a page of a list",
    "pagination_token": "names a page of a list",
    "ai-gateway-auth-method": "the word api-key or oidc",
    "x-dashscope-authtype": "the word qwen-oauth",
}
"""Listed names that look as if they held a credential, with the reason why they do not."""


def listed(provider: Provider) -> set[str]:
    """What may be sent to it."""
    return {*COMMON.headers.split(), *COMMON.query.split(), *provider.forward_headers, *provider.query, *provider.accounts}


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda known: known.id)
def test_no_listed_name_can_hold_a_credential(provider: Provider) -> None:
    """S4: but for those that were looked at one by one."""
    assert {name for name in listed(provider) if may_hold_credential(name) and name not in REVIEWED} == set()
    assert all(name == name.lower() for name in listed(provider))


def test_every_reviewed_name_is_still_listed() -> None:
    """An exception that nothing needs is removed."""
    assert REVIEWED.keys() <= set().union(*map(listed, PROVIDERS.values()))


@pytest.mark.parametrize(
    "name",
    [
        "x-litellm-api-key", "ocp-apim-subscription-key", "x-auth-token", "x-api-token", "cookie", "authorization", "key",
        "api_key", "apikey", "access_token", "X-Amz-Signature", "X-Amz-Credential", "x-amz-security-token", "sig",
        "signature", "jwt", "secret", "client_secret", "password", "private-token", "x-goog-iam-authority-selector-token",
        "xi-api-key", "single_use_token", "client_assertion", "authentication", "x-authenticated-by", "session_key", "bearer",
        "pwd", "KEY", "$key",
    ],
)  # fmt: skip
def test_a_name_that_may_hold_a_credential(name: str) -> None:
    """S4: no beginning with `*` stands for it."""
    assert may_hold_credential(name)
    assert name not in Names(["*", f"{name[:2]}*"])
    assert name in Names([name])


@pytest.mark.parametrize(
    "name", ["accept", "x-stainless-lang", "max_tokens", "author", "x-authored-by", "authority", "keyword", "limit", "passage"]
)
def test_a_name_that_holds_none(name: str) -> None:
    """A beginning with `*` stands for it."""
    assert not may_hold_credential(name)
    assert name in Names(["*"])


@given(st.text(max_size=80), st.lists(st.from_regex(r"[a-z-]{1,12}\*?", fullmatch=True), max_size=5))
def test_a_name_that_is_not_on_the_list_is_not_listed(name: str, names: list[str]) -> None:
    """S4: whatever it is."""
    begins = any(name.lower().startswith(one[:-1]) for one in names if one.endswith("*"))
    assert (name in Names(names)) == (
        len(name) <= 64 and (name.lower() in names or (begins and not may_hold_credential(name.lower())))
    )
    assert name not in Names([*names, name], without=[name.lower()]) or begins


@pytest.mark.parametrize("before", ["", "x ", "a=", "python/3 (", "a%3D"])
@pytest.mark.parametrize(
    "prefix", sorted({prefix for known in PROVIDERS.values() for prefix in (*known.key_prefixes, *known.token_prefixes)})
)
def test_every_vendors_credential_is_recognised(prefix: str, before: str) -> None:
    """S4: wherever it stands, and encoded."""
    key = f"{prefix}0123456789abcdefABCDEF"
    assert CREDENTIALS.within(f"{before}{key}")
    assert CREDENTIALS.within(before + "".join(f"%{ord(char):02x}" for char in key))
    assert CREDENTIALS.within(f"{before}%25{ord(key[0]):02X}{key[1:]}")


@pytest.mark.parametrize("text", ["eqb_x", "sk-0123456789abcdef", "eyJhbGciOi1.eyJzdWIiOiIx.x", "%65qb_"])
def test_other_credentials_are_recognised(text: str) -> None:
    """Lease tokens, the keys of most vendors, JSON Web Tokens."""
    assert CREDENTIALS.within(text)


@pytest.mark.parametrize(
    "text",
    [
        "xai-sdk-python/1.4", "unknown/None; hf_hub/0.23.4; python/3.10", "pplx-70b-online", "eyJpZCI6MX0", "100%", "%zz",
        "Anthropic/Python 0.84.0", "claude-code-20250219,interleaved-thinking-2025-05-14", "task-sk-", "00-4bf92f3577b34da6-01",
    ],
)  # fmt: skip
def test_what_programs_send_is_no_credential(text: str) -> None:
    """Though it begins like one."""
    assert not CREDENTIALS.within(text)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ()),
        ("a=1&b", ("a", "b")),
        ("a=1;key=2", ("a", "key")),
        ("a=1?key=2", ("a", "key")),
        ("%6bey=1", ("key",)),
        ("include%5B%5D=1&metadata[key]=2", ("include", "metadata")),
        ("[key]=1", ("[key]",)),
        ("=1&&=", ("", "")),
        ("a+b=1", ("a b",)),
        ("%256bey=1", ("%6bey",)),
    ],
)
def test_the_names_of_parameters(query: str, names: tuple[str, ...]) -> None:
    """As a server may read them."""
    assert parameters(query) == names


def test_a_name_is_shown_where_it_is_plain() -> None:
    """It may be a key itself."""
    assert shown("x-team[]") == "'x-team[]'"
    assert shown("x" * 41) == shown("a b") == "of that name"
