"""What the built-in lists let through: what agents need of each vendor, and nothing that is a credential or leads to one."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from equabot_broker.domain.provider import Provider
from equabot_broker.providers import PROVIDERS
from equabot_broker.routing.joining import received_by
from equabot_broker.routing.request_rules import METHODS, rules, target_fault
from tests.providers.requests_of_vendors import BASES, FORBIDDEN, NEEDED, rows

WORDS = (
    "access", "account", "activity", "admin", "api-key", "api_key", "apikey", "apiKey", "audit", "auth", "authorize",
    "authTokens", "billing", "client_secret", "clientSecret", "config", "configuration", "credential", "credit", "deployment",
    "get-signed-url", "getSignedUrl", "grant", "impersonate", "integration", "invitation", "invite", "invoice", "jwt", "key",
    "login", "member", "membership", "oauth", "org", "organisation", "organization", "password", "payment", "permission",
    "policy", "project", "role", "secret", "service-account", "service_account", "session", "setting", "signed", "signed-url",
    "sso", "subscription", "team", "token", "usage", "user", "vault", "webhook", "whoami", "workspace",
)  # fmt: skip
"""What names credentials, those who have them, and what they cost."""
OF_SECRETS = (
    "admin", "apikey", "auth", "billing", "config", "credential", "invit", "key", "member", "oauth", "org", "password",
    "permission", "secret", "session", "setting", "signed", "token", "webhook", "account", "user", "workspace",
)  # fmt: skip

EXCEPTIONS = {
    "/messages/count_tokens": "counts the tokens of a message",
    "/responses/input_tokens": "counts the tokens of a request",
    "/models/{model}:countTokens": "counts the tokens of a message",
    "/tokenizers/estimate-token-count": "counts the tokens of a message",
    "/tokenizer": "counts the tokens of a message",
    "/tokenize-text": "counts the tokens of a text",
    "/workflows/accounts/fireworks/models/{model}": "the vendor's own models are named so",
    "/workflows/accounts/fireworks/models/{model}/text_to_image": "the vendor's own models are named so",
    "/workflows/accounts/fireworks/models/{model}/get_result": "the vendor's own models are named so",
    "/v1/sessions": "C14: runs of an agent, by the vendor's reference; nothing that they answer is a credential",
    "/openai/deployments/{deployment}": "the name of a model, before what is done with it; deployments themselves are not in",
}
"""Parts of paths of rules that hold a word of `WORDS` and were looked at, with the reason."""
LISTED = {"anthropic": {"/v1/sessions", "/v1/sessions/x1"}}
"""What rules with such a word let through as it is."""

IDS = [provider.id for provider in PROVIDERS.values()]


def addressed(provider_id: str) -> Provider:
    provider = PROVIDERS[provider_id]
    return provider if provider.base_url else replace(provider, base_url=BASES[provider_id])


def allow(provider: Provider, method: str, path: str) -> bool:
    return rules(provider.requests, provider.base_path).allow(method, path)


def test_every_provider_has_both_kinds_of_rows() -> None:
    """A vendor that joins the catalogue is looked at here."""
    assert sorted(NEEDED) == sorted(FORBIDDEN) == sorted(IDS)


@pytest.mark.parametrize("provider", IDS)
def test_every_provider_has_a_list_that_allows(provider: str) -> None:
    """S1: no list relies on what it forbids; no rule has a star, which would admit paths that no person has read."""
    requests = PROVIDERS[provider].requests
    assert requests
    for rule in requests:
        assert "!" not in rule
        assert "*" not in rule
        assert rule.split()[0] in METHODS
    assert addressed(provider).gateway_fault == ""


@pytest.mark.parametrize(("provider", "method", "path"), rows(NEEDED))
def test_what_agents_need_passes(provider: str, method: str, path: str) -> None:
    """By the vendor's own reference."""
    assert target_fault(path, "") == ""
    assert allow(addressed(provider), method, path)


BIDI = "/ws/google.ai.generativelanguage.{}.GenerativeService.BidiGenerateContent"
SPEAK = "/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb/{}"
WEBSOCKETS = {
    "openai": "/v1/realtime /v1/responses",
    "openai-codex": "/backend-api/codex/responses",
    "google": f"{BIDI.format('v1beta')} {BIDI.format('v1alpha')}",
    "github-copilot": "/responses",
    "vercel-ai-gateway": "/v1/responses",
    "microsoft-foundry": "/openai/v1/realtime /openai/realtime /openai/v1/responses",
    "deepgram": "/v1/listen /v2/listen /v1/speak",
    "xai": "/v1/realtime /v1/responses /v1/tts /v1/stt",
    "mistral": "/v1/audio/transcriptions/realtime",
    "together": "/v1/realtime /v1/audio/speech/websocket",
    "litellm": "/realtime /responses /v1/realtime /v1/responses",
    "elevenlabs": f"{SPEAK.format('stream-input')} {SPEAK.format('multi-stream-input')} /v1/speech-to-text/realtime",
}
"""By the vendors' own documentation, as whole paths."""


@pytest.mark.parametrize("provider", IDS)
def test_websockets_are_opened_where_the_vendor_documents_them(provider: str) -> None:
    """C8: there, and nowhere else. Each of these paths may also be asked for."""
    known = addressed(provider)
    documented = WEBSOCKETS.get(provider, "").split()
    for path in documented:
        received = received_by(known, "GET", path)
        assert received == path
        assert rules(known.websockets, known.base_path).allow("GET", received), path
        assert allow(known, "GET", received), path
    for one in known.websockets:
        assert one in known.requests
        assert any(rules((one,), known.base_path).allow("GET", path) for path in documented), one


@pytest.mark.parametrize(("provider", "method", "path"), rows(FORBIDDEN))
def test_what_hands_out_credentials_does_not(provider: str, method: str, path: str) -> None:
    """S1: in no case, with or without a slash at its end, with the base path said twice or not at all."""
    known = addressed(provider)
    behind = path.removeprefix(known.base_path)
    for spelling in {path, behind, known.base_path + path, path.upper(), f"{path.rstrip('/')}/", path.rstrip("/"), f"{path}/x"}:
        assert not allow(known, method, received_by(known, method, spelling)), spelling


@pytest.mark.parametrize("provider", IDS)
def test_no_word_of_credentials_passes(provider: str) -> None:
    """S1: before, behind and in place of every part of every path that is let through."""
    known = addressed(provider)
    allowed = rules(known.requests, known.base_path)
    passed = {path for path in generated(known) for method in METHODS - {"HEAD"} if allowed.allow(method, path)}
    assert passed == LISTED.get(provider, set())


def generated(provider: Provider) -> Iterator[str]:
    """Paths with a word of administration in them, near those of the rules."""
    places = {""}
    for rule in provider.requests:
        parts = re.sub(r"\{[a-z_]+\}", "x1", rule.split()[1]).split("/")[1:]
        places |= {"".join(f"/{part}" for part in parts[:end]) for end in range(1, len(parts) + 1)}
    written = {form for word in WORDS for form in forms(word)}
    for place in places:
        for word in written:
            for path in (f"{place}/{word}", f"{place}/{word}/x1", f"{place}:{word}", f"{place}/x1:{word}"):
                if place or not path.startswith(":"):
                    yield f"{provider.base_path}{path}"


def forms(word: str) -> Iterator[str]:
    yield from (word, f"{word}s", word.upper(), f"new-{word}", f"my{word[0].upper()}{word[1:]}s")


@pytest.mark.parametrize("provider", IDS)
def test_rules_with_such_a_word_were_looked_at(provider: str) -> None:
    """S1: each has a reason."""
    for rule in PROVIDERS[provider].requests:
        path = rule.split()[1]
        literal = re.sub(r"\{[a-z_]+\}", "", path).lower()
        if any(word.lower() in literal for word in (*WORDS, *OF_SECRETS)):
            assert any(end in path for end in EXCEPTIONS), rule


def test_every_exception_is_one() -> None:
    """What no rule needs any more is removed."""
    paths = [rule for provider in PROVIDERS.values() for rule in provider.requests]
    assert [end for end in EXCEPTIONS if not any(end in path for path in paths)] == []
