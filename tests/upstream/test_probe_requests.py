"""The smallest request to a model, and what its answer says of a credential."""

import json
from dataclasses import replace

import pytest

from equabot_broker.domain.probing import ProbeResult, Verdict
from equabot_broker.domain.provider import Provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.upstream.probe_requests import TOKENS, cheapest, judge, request

HEADERS = {"x-api-key": "s3cret"}


@pytest.mark.parametrize(
    ("provider", "url", "limit"),
    [
        ("anthropic", "https://api.anthropic.com/v1/messages", ("max_tokens",)),
        ("openai", "https://api.openai.com/v1/chat/completions", ("max_completion_tokens",)),
        ("openrouter", "https://openrouter.ai/api/v1/chat/completions", ("max_tokens",)),
        (
            "google",
            "https://generativelanguage.googleapis.com/v1beta/models/m%2F1:generateContent",
            ("generationConfig", "maxOutputTokens"),
        ),
    ],
)
def test_each_providers_own_api_is_asked_for_eight_tokens(provider: str, url: str, limit: tuple[str, ...]) -> None:
    """At most; in its own form, at its own address."""
    known = PROVIDERS[provider]
    made = request(known, model="m/1", base_url=known.base_url, headers=HEADERS)
    assert made is not None
    assert made.url == url
    assert made.headers.items() >= HEADERS.items()
    body = json.loads(made.body)
    for name in limit:
        body = body[name]
    assert body == TOKENS == 8
    assert "s3cret" not in repr(made)


def test_another_address_may_be_configured() -> None:
    """With a slash at its end or without."""
    for base in ("http://127.0.0.1:1", "http://127.0.0.1:1/"):
        made = request(PROVIDERS["anthropic"], model="m", base_url=base, headers={})
        assert made is not None
        assert made.url == "http://127.0.0.1:1/v1/messages"
        assert made.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("provider", ["brave", "deepgram", "openai-codex", "microsoft-foundry"])
def test_what_has_no_small_call_is_not_called(provider: str) -> None:
    """A search engine answers no model's question; a vendor without an address cannot be asked."""
    known = PROVIDERS[provider]
    assert request(known, model="m", base_url=known.base_url, headers={}) is None
    assert request(PROVIDERS["openai"], model="", base_url="https://x", headers={}) is None
    assert request(replace(PROVIDERS["openai"], api="chat"), model="m", base_url="", headers={}) is None


def test_every_vendor_with_a_form_has_an_address() -> None:
    """And one of the forms that there are."""
    for provider in PROVIDERS.values():
        assert provider.api in ("", "messages", "openai", "chat", "gemini")
        assert not provider.probe_model or (provider.base_url and provider.api)


@pytest.mark.parametrize(
    ("provider", "method", "path"),
    [
        ("anthropic", "POST", "/v1/messages/count_tokens"),
        ("openai", "GET", "/models"),
        ("google", "GET", "/v1beta/models?pageSize=1"),
        ("openrouter", "POST", "/chat/completions"),
    ],
)
def test_the_cheapest_request_that_tells_a_refused_credential(provider: str, method: str, path: str) -> None:
    """S4: it is free where the vendor has one that needs the credential. OpenRouter lists its models to anybody."""
    found = cheapest(PROVIDERS[provider], base_url="https://vendor.example/", headers={"x": "y"})
    assert found is not None
    assert (found.method, found.url, found.headers["x"]) == (method, f"https://vendor.example{path}", "y")
    assert cheapest(Provider(id="unknown"), base_url="https://vendor.example", headers={}) is None


@pytest.mark.parametrize(
    ("status", "text", "verdict"),
    [
        (200, "", "ok"),
        (201, "anything", "ok"),
        (401, "invalid x-api-key", "auth"),
        (403, "", "auth"),
        (402, "", "billing"),
        (408, "", "timeout"),
        (504, "", "timeout"),
        (429, "insufficient_quota", "rate_limit"),
        (529, "overloaded_error", "rate_limit"),
        (503, "", "rate_limit"),
        (404, "model: claude-x", "no_model"),
        (404, "not found", "format"),
        (400, "max_tokens: too large", "format"),
        (400, "Your credit balance is too low", "billing"),
        (400, "API key not valid. Please pass a valid API key.", "auth"),
        (400, "You have reached your specified API usage limits: usage limit", "rate_limit"),
        (422, "", "format"),
        (500, "", "unknown"),
        (500, "too many requests", "rate_limit"),
        (302, "", "unknown"),
    ],
)
def test_an_answer_is_one_of_eight(status: int, text: str, verdict: str) -> None:
    """By its status, and by its text where that says nothing."""
    assert judge(status, json.dumps({"error": {"message": text}}).encode()).verdict == verdict


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_credential_of_claude_code_is_rejected_with_the_advice(status: int) -> None:
    """The seed's own words for it."""
    told = "This credential is only authorized for use with Claude Code and cannot be used for other API requests."
    text = json.dumps({"error": {"message": told}}).encode()
    found = judge(status, text)
    assert found == ProbeResult(
        Verdict.AUTH, "rejected: it is only authorized for use with Claude Code; use an Anthropic API key instead", sure=False
    )


def test_nothing_of_an_answer_is_repeated() -> None:
    """It may quote the request's credential."""
    assert "s3cret" not in str(judge(400, b"s3cret is no good \xff"))
    assert judge(200, b"\xff" * (1 << 20)).verdict == "ok"


@pytest.mark.parametrize(
    ("body", "sure"),
    [
        (b'{"error": {"message": "You have insufficient permissions. Missing scopes: api.model.read."}}', False),
        (b'{"error": "insufficient_scope"}', False),
        (b'{"ok": false, "error": "missing_scope", "needed": "models:read"}', False),
        (b'{"error": {"code": "insufficient_scopes"}}', False),
        (
            b'{"detail": {"status": "missing_permissions", "message": "The key is missing the permission models_read"}}',
            False,
        ),
        (b'{"error": {"message": "API key not allowed to access model gpt-4.", "type": "key_model_access_denied"}}', False),
        (b'{"error": {"code": "PermissionDenied", "message": "The principal lacks the required data action"}}', False),
        (b'{"message": "This key is not authorized to list models"}', False),
        (b'{"message": "Your key does not have access to this endpoint"}', False),
        (b'{"error": "insufficient_privileges"}', False),
        (b'{"error": {"message": "invalid x-api-key"}}', True),
        (b'{"error": {"message": "Access denied due to invalid subscription key or wrong API endpoint"}}', True),
        (b'{"message": "The API key is invalid, so it is not authorized to list models"}', True),
        (b'{"message": "The token has expired and does not have access to this endpoint"}', True),
        (b'{"error": {"message": "Incorrect API key provided: periscope"}}', True),
        (b"", True),
    ],
)
def test_a_401_that_speaks_of_scopes_is_about_the_request(body: bytes, sure: bool) -> None:
    """C1: a restricted key is a good key."""
    found = judge(401, body)
    assert (found.verdict, found.sure) == (Verdict.AUTH, sure)
