"""How clients join a base URL and a path, and the one path that the provider then receives."""

from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from equabot_broker.providers import PROVIDERS
from equabot_broker.routing.joining import _readings, received, received_by
from equabot_broker.routing.request_rules import rules, target_fault

SDKS: Final = """
anthropic         anthropic, Python and TypeScript    POST /v1/messages                        /v1/messages
anthropic         base URL with /v1                   POST /v1/v1/messages                     /v1/messages
anthropic         ai-sdk, opencode                    POST /messages                           /v1/messages
anthropic         ai-sdk with /v1                     POST /v1/messages                        /v1/messages
anthropic         ai-sdk, a slash at the end          POST /v1/messages/                       /v1/messages
anthropic         OpenAI-like listing                 GET  /models                             /v1/models
anthropic         LiteLLM                             POST /v1/messages/count_tokens           /v1/messages/count_tokens
openai            openai, Python, TypeScript, Go      POST /chat/completions                   /v1/chat/completions
openai            base URL with /v1                   POST /v1/responses                       /v1/responses
openai            a client that adds /v1 to that      POST /v1/v1/responses                    /v1/responses
openai            thrice                              POST /v1/v1/v1/responses                 /v1/responses
openai            a slash at the end                  GET  /v1/models/                         /v1/models
openrouter        the vendor's base path              POST /api/v1/chat/completions            /api/v1/chat/completions
openrouter        behind it                           POST /chat/completions                   /api/v1/chat/completions
openrouter        anthropic behind the base URL       POST /v1/messages                        /api/v1/messages
openrouter        anthropic behind the base path      POST /api/v1/v1/messages                 /api/v1/messages
openrouter        the base path twice                 POST /api/v1/api/v1/chat/completions     /api/v1/chat/completions
groq              the vendor's base path, and /v1     POST /openai/v1/v1/chat/completions      /openai/v1/chat/completions
groq              a client that adds /v1              POST /v1/chat/completions                /openai/v1/chat/completions
fireworks         a client that adds /v1              POST /v1/chat/completions                /inference/v1/chat/completions
zai               a client that adds /v1              POST /v1/chat/completions                /api/paas/v4/chat/completions
zai               base URL with /v4, and /v1          POST /v4/v1/chat/completions             /api/paas/v4/chat/completions
google            google-genai                        POST /v1beta/models/g:generateContent    /v1beta/models/g:generateContent
google            ai-sdk                              POST /models/g:generateContent           /v1beta/models/g:generateContent
google            base URL with /v1beta               POST /v1beta/v1beta/models/g:countTokens /v1beta/models/g:countTokens
google            base URL with /v1                   POST /v1/v1beta/models/g:countTokens     /v1beta/models/g:countTokens
google            its form of OpenAI                  POST /v1beta/openai/chat/completions     /v1beta/openai/chat/completions
google            that without a version              POST /openai/chat/completions            /v1beta/openai/chat/completions
deepseek          openai                              POST /chat/completions                   /chat/completions
deepseek          anthropic                           POST /v1/messages                        /anthropic/v1/messages
deepseek          anthropic, as documented            POST /anthropic/v1/messages              /anthropic/v1/messages
deepseek          ai-sdk, as documented               POST /anthropic/messages                 /anthropic/v1/messages
firecrawl         no version                          POST /scrape                             /v2/scrape
openrouter        the base path without its version   POST /api/chat/completions               /api/v1/chat/completions
openrouter        that, in front of the base path     POST /api/api/v1/chat/completions        /api/v1/chat/completions
kimi-code         ai-sdk at the address for Claude    POST /coding/messages                    /coding/v1/messages
groq              the base path without its version   POST /openai/chat/completions            /openai/v1/chat/completions
fireworks         the base path without its version   GET  /inference/models/                  /inference/v1/models
zai               the base path without its version   POST /api/paas/chat/completions          /api/paas/v4/chat/completions
github-copilot    a client that adds /v1              POST /v1/chat/completions                /chat/completions
exa               a client that adds /v1              POST /v1/search                          /search
google            its form of OpenAI, and /v1         POST /v1beta/openai/v1/chat/completions  /v1beta/openai/chat/completions
microsoft-foundry openai                              POST /chat/completions                   /openai/v1/chat/completions
"""
"""Provider, client, what it asks for behind `/<provider>`, and what the provider is to receive."""


def table() -> list[tuple[str, str, str, str]]:
    rows = map(str.split, SDKS.strip().splitlines())
    return [(row[0], row[-3], row[-2], row[-1]) for row in rows]


@pytest.mark.parametrize(("provider", "method", "path", "whole"), table())
def test_every_sdks_way_of_joining_is_understood(provider: str, method: str, path: str, whole: str) -> None:
    """C4: one rule, and no exception for a client or a vendor."""
    known = PROVIDERS[provider]
    assert received_by(known, method, path) == whole
    assert rules(known.requests, known.base_path).allow(method, whole)


@pytest.mark.parametrize(
    ("base", "written", "path", "whole"),
    [
        ("", ("POST /v1/chat/completions",), "/chat/completions", "/v1/chat/completions"),
        ("", ("POST /v1/chat/completions",), "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1", ("POST /chat/completions",), "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1", ("/**",), "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("", ("/**",), "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/llm", ("POST /v1/chat/completions",), "/chat/completions", "/llm/v1/chat/completions"),
        ("/llm", ("POST /v1/chat/completions",), "/llm/chat/completions", "/llm/v1/chat/completions"),
        ("/llm/v1", ("POST /chat/completions",), "/v1/chat/completions", "/llm/v1/chat/completions"),
        ("/llm/v1", ("POST /chat/completions",), "/llm/v1/v1/chat/completions/", "/llm/v1/chat/completions"),
        ("/llm/v1", ("POST /llm/v1/chat*",), "/v1/chat/completions", "/llm/v1/chat/completions"),
        ("/llm/v1", ("POST /chat/completions",), "/llm/chat/completions", "/llm/v1/chat/completions"),
        ("/llm/v1", ("POST /llm/chat",), "/llm/chat", "/llm/v1/llm/chat"),
        ("", ("POST /v1/chat", "POST /chat"), "/v1/chat", "/v1/chat"),
        ("", ("POST /chat/",), "/chat/", "/chat/"),
        ("", ("POST /chat/",), "/v1/v1", "/v1"),
    ],
)
def test_a_provider_of_ones_own_is_joined_alike(base: str, written: tuple[str, ...], path: str, whole: str) -> None:
    """C4: with its base path or without, with rules as they come behind it or whole."""
    assert received("POST", path, base=base, written=written) == whole


@pytest.mark.parametrize(
    ("provider", "method", "path"),
    [
        ("firecrawl", "POST", "/v3/scrape"),
        ("anthropic", "POST", "/v2/messages"),
        ("google", "POST", "/v2beta/models/g:generateContent"),
        ("openai", "POST", "/v2/chat/completions"),
        ("exa", "GET", "/keys"),
        ("openai", "POST", "/V1/chat/completions"),
        ("openrouter", "POST", "/v1/keys"),
        ("google", "POST", "/auth_tokens"),
    ],
)
def test_another_version_and_another_path_stay_what_they_are(provider: str, method: str, path: str) -> None:
    """C4: a version that a client has asked for is not exchanged, and no path is guessed."""
    known = PROVIDERS[provider]
    assert not rules(known.requests, known.base_path).allow(method, received_by(known, method, path))


@pytest.mark.parametrize("path", ["/v1/admin", "/v1/v1/admin", "/admin", "/admin/", "/v1/admin/"])
def test_what_is_forbidden_is_not_read_as_something_else(path: str) -> None:
    """C4: the first reading that a rule names is the one, though another rule forbids it."""
    written = ("/**", "!/v1/admin*")
    assert not rules(written, "/v1").allow("GET", received("GET", path, base="/v1", written=written))


@pytest.mark.parametrize("piece", ["/api", "/api/v1", "/v1", "/api/v1/v1/api"])
def test_a_path_that_says_it_all_over_is_read_as_well(piece: str) -> None:
    """C4: as long as a path may be, which is neither an error nor many more readings than of a short one."""
    openrouter = PROVIDERS["openrouter"]
    for end in ("/chat/completions", "/keys/", ""):
        path = piece * (8000 // len(piece)) + end
        assert received_by(openrouter, "POST", path).startswith("/api/v1")
        assert len(list(_readings(path, "/api/v1", {}))) <= 16


SEGMENTS = st.sampled_from(
    ["v1", "v2", "v1beta", "v4", "api", "openai", "anthropic", "messages", "models", "x1", "keys", "auth_tokens", "chat"]
)
PATHS = st.builds(
    lambda parts, slash: "/" + "/".join(parts) + ("/" if slash and parts else ""), st.lists(SEGMENTS, max_size=6), st.booleans()
)
RULES = st.builds(
    lambda no, method, parts, end: f"{no}{method}/{'/'.join(parts)}{end}",
    st.sampled_from(["", "", "", "!"]), st.sampled_from(["", "POST ", "GET "]), st.lists(SEGMENTS, min_size=1, max_size=4),
    st.sampled_from(["", "", "/{x}", "*"]),
)  # fmt: skip


@given(
    path=PATHS,
    base=st.sampled_from(["", "/v1", "/api/v1", "/openai", "/api/v4"]),
    written=st.lists(RULES, max_size=5).map(tuple),
    method=st.sampled_from(["GET", "POST"]),
)
@example(path="/v1/v1/keys", base="/v1", written=("/**", "!/keys"), method="GET")
def test_joining_opens_nothing(path: str, base: str, written: tuple[str, ...], method: str) -> None:
    """C4: what is sent is a plain path below the base path, and what the list allows of it, it allows when it is said whole."""
    whole = received(method, path, base=base, written=written)
    assert target_fault(whole, "") == ""
    assert whole == base or whole.startswith(f"{base}/")
    listed = rules(written, base)
    if listed.allow(method, whole):
        assert received(method, whole, base=base, written=written) == whole


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
@given(path=PATHS, method=st.sampled_from(["GET", "POST", "DELETE"]))
def test_a_vendor_receives_nothing_that_its_list_does_not_name(provider: str, path: str, method: str) -> None:
    """C4: with the real lists: what passes after joining is a request that passes when it is said whole."""
    known = PROVIDERS[provider]
    whole = received_by(known, method, path)
    listed = rules(known.requests, known.base_path)
    assert not listed.allow(method, whole) or received_by(known, method, whole) == whole
