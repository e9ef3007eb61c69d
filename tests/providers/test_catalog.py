"""The vendors' facts: names, header forms, addresses and prefixes as in OpenClaw."""

import pytest

from equabot_broker.domain.provider import EnvName, Mode, Provider
from equabot_broker.providers import BUILT_IN, PROVIDERS

NAMED_AFTER_THEMSELVES = [
    "groq",
    "deepgram",
    "cerebras",
    "xai",
    "moonshot",
    "minimax",
    "synthetic",
    "venice",
    "mistral",
    "deepseek",
    "fireworks",
    "together",
    "perplexity",
    "nvidia",
    "litellm",
    "voyage",
    "exa",
    "tavily",
    "firecrawl",
    "brave",
    "elevenlabs",
    "openai",
    "openrouter",
]

IN_ORDER = {
    "anthropic": "ANTHROPIC_OAUTH_TOKEN CLAUDE_CODE_OAUTH_TOKEN ANTHROPIC_AUTH_TOKEN ANTHROPIC_API_KEY",
    "google": "GEMINI_API_KEY GOOGLE_API_KEY GOOGLE_GENERATIVE_AI_API_KEY",
    "github-copilot": "COPILOT_GITHUB_TOKEN GH_TOKEN GITHUB_TOKEN",
    "zai": "ZAI_API_KEY Z_AI_API_KEY",
    "opencode": "OPENCODE_API_KEY OPENCODE_ZEN_API_KEY",
    "qwen-portal": "QWEN_OAUTH_TOKEN QWEN_PORTAL_API_KEY",
    "vercel-ai-gateway": "AI_GATEWAY_API_KEY",
    "kimi-code": "KIMICODE_API_KEY",
    "huggingface": "HUGGINGFACE_HUB_TOKEN HF_TOKEN",
    "chutes": "CHUTES_OAUTH_TOKEN CHUTES_API_KEY",
    "microsoft-foundry": "AZURE_OPENAI_API_KEY",
} | {name: f"{name.upper()}_API_KEY" for name in NAMED_AFTER_THEMSELVES}


@pytest.mark.parametrize("provider", IN_ORDER)
def test_environment_names_are_the_seeds_in_its_order(provider: str) -> None:
    """The first name wins, so their order is a rule."""
    assert " ".join(env.name for env in PROVIDERS[provider].env_names) == IN_ORDER[provider]


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda p: p.id)
def test_a_name_with_oauth_or_auth_token_is_a_token(provider: Provider) -> None:
    """The name says what the value is."""
    for env in provider.env_names:
        token = "OAUTH_TOKEN" in env.name or "AUTH_TOKEN" in env.name
        assert env.mode is (Mode.TOKEN if token else Mode.API_KEY)


def test_every_api_key_has_a_list() -> None:
    """`<P>_API_KEYS` for every `<P>_API_KEY`."""
    assert PROVIDERS["google"].list_env_names == ("GEMINI_API_KEYS", "GOOGLE_API_KEYS", "GOOGLE_GENERATIVE_AI_API_KEYS")
    assert PROVIDERS["anthropic"].list_env_names == ("ANTHROPIC_API_KEYS",)
    assert PROVIDERS["github-copilot"].list_env_names == ()


def test_anthropic_carries_keys_and_tokens_differently() -> None:
    """A key in x-api-key; everything else as a bearer with the beta header that OAuth needs."""
    anthropic = PROVIDERS["anthropic"]
    key = anthropic.header_form(Mode.API_KEY)
    assert (key.name, key.prefix, dict(key.extra)) == ("x-api-key", "", {})
    assert anthropic.sdk_env_name(Mode.API_KEY) == "ANTHROPIC_API_KEY"
    for mode in (Mode.TOKEN, Mode.OAUTH, Mode.WIF):
        form = anthropic.header_form(mode)
        assert (form.name, form.prefix) == ("Authorization", "Bearer ")
        assert dict(form.extra) == {"anthropic-beta": "oauth-2025-04-20"}
        assert anthropic.sdk_env_name(mode) == "ANTHROPIC_AUTH_TOKEN"
    assert anthropic.base_url_env == "ANTHROPIC_BASE_URL"


OWN_FORMS = {
    "anthropic": ("x-api-key", ""),
    "google": ("x-goog-api-key", ""),
    "microsoft-foundry": ("api-key", ""),
    "deepgram": ("Authorization", "Token "),
    "brave": ("X-Subscription-Token", ""),
    "elevenlabs": ("xi-api-key", ""),
}


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda p: p.id)
def test_keys_travel_as_a_bearer_but_for_those_who_want_it_otherwise(provider: Provider) -> None:
    """What a request must carry, by the vendors' documentation."""
    form = provider.header_form(Mode.API_KEY)
    assert (form.name, form.prefix) == OWN_FORMS.get(provider.id, ("Authorization", "Bearer "))


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda p: p.id)
def test_a_provider_is_complete(provider: Provider) -> None:
    """An address over TLS without a trailing slash where there is one for all, and a variable for the SDK."""
    if provider.id not in ("litellm", "microsoft-foundry"):
        assert provider.base_url.startswith("https://")
        assert not provider.base_url.endswith("/")
    if provider.env_names:
        assert provider.sdk_env_name(Mode.API_KEY) in {env.name for env in provider.env_names}
    assert provider.token_encoding in ("json", "form")


def test_no_two_providers_share_a_name() -> None:
    """A variable, a spelling and a prefix mean one provider each."""
    names = [name for p in PROVIDERS.values() for name in (p.id, *p.aliases)]
    variables = [env.name for p in PROVIDERS.values() for env in p.env_names]
    prefixes = [prefix for p in PROVIDERS.values() for prefix in {*p.key_prefixes, *p.token_prefixes}]
    for found in (names, variables, prefixes):
        assert len(found) == len(set(found))
    assert "sk-" not in prefixes, "half of all vendors hand out sk-"


@pytest.mark.parametrize(
    ("spelling", "provider"),
    [
        ("z.ai", "zai"),
        ("opencode-zen", "opencode"),
        ("qwen", "qwen-portal"),
        ("OpenAI", "openai"),
        (" anthropic ", "anthropic"),
    ],
)
def test_other_spellings_are_known(spelling: str, provider: str) -> None:
    """People write a vendor's name in more than one way."""
    assert BUILT_IN.normalise(spelling) == provider


def test_token_endpoints() -> None:
    """Where a refresh or an exchange goes, and in which encoding."""
    found = {p.id: (p.token_url, p.token_encoding) for p in PROVIDERS.values() if p.token_url}
    assert found == {
        "anthropic": ("https://platform.claude.com/v1/oauth/token", "json"),
        "openai": ("https://auth.openai.com/oauth/token", "form"),
        "openai-codex": ("https://auth.openai.com/oauth/token", "form"),
        "openrouter": ("https://openrouter.ai/api/v1/oauth/token", "form"),
        "qwen-portal": ("https://chat.qwen.ai/api/v1/oauth2/token", "form"),
        "chutes": ("https://api.chutes.ai/idp/token", "form"),
    }


def test_facts_cannot_be_changed_by_accident() -> None:
    """Everything that reads them shares them."""
    with pytest.raises(TypeError):
        PROVIDERS["other"] = PROVIDERS["openai"]  # type: ignore[index]
    assert PROVIDERS["openai"].env_names == (EnvName("OPENAI_API_KEY"),)
