"""The providers that are known without configuration. To add one, add it to the table.

Only prefixes that no other vendor's keys can have are listed: many vendors issue plain `sk-…`, which identifies no vendor. A
prefix that is in both lists identifies the provider, but not the kind of credential. Header forms, names and addresses are
those of the vendors' documentation.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from equabot_broker.domain.provider import BEARER, Catalog, Exchange, HeaderForm, Provider
from equabot_broker.providers import allowed, forwarding
from equabot_broker.providers.declaring import CLAUDE_CODE, LoginForm, vendor

_TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693
_GITHUB: Final = ("github_pat_", "ghp_", "gho_", "ghu_", "ghs_")

_ALL: Final = (
    vendor(
        "anthropic",
        "ANTHROPIC_OAUTH_TOKEN CLAUDE_CODE_OAUTH_TOKEN ANTHROPIC_AUTH_TOKEN ANTHROPIC_API_KEY",
        "https://api.anthropic.com",
        base_url_env="ANTHROPIC_BASE_URL",
        also=("claude",),
        header=HeaderForm("x-api-key", ""),
        token_header=HeaderForm("Authorization", "Bearer ", MappingProxyType({"anthropic-beta": "oauth-2025-04-20"})),
        sdk_token_env="ANTHROPIC_AUTH_TOKEN",
        other_env="CLAUDE_API_KEY CLAUDE_CODE_API_KEY",
        prefixes=("sk-ant-", "sk-ant-api", "sk-ant-admin"),
        # A refresh token (ort) is not a key, and no request can use it.
        token_prefixes=("sk-ant-", "sk-ant-oat", "sk-ant-ort"),
        beginnings=MappingProxyType({"sk-ant-api03-": 16, "sk-ant-oat01-": 16, "sk-ant-ort01-": 16}),
        oauth=("https://platform.claude.com/v1/oauth/token", "json", "9d1c250a-e61b-44d9-88ed-5944d1962f5e"),
        login=LoginForm(
            "org:create_api_key user:profile user:inference",
            authorize="https://claude.ai/oauth/authorize",
            redirect="https://platform.claude.com/oauth/code/callback",  # a page that shows the code
            extra=MappingProxyType({"code": "true"}),
        ),
        model="claude-haiku-4-5",
        api="messages",
        # The tokens of a Claude login, and setup tokens: "only authorized for use with Claude Code".
        exclusive=MappingProxyType({"sk-ant-oat": CLAUDE_CODE}),
        requests=allowed.ANTHROPIC,
        # Not the token endpoint of logins. The header is in the vendor's own client, but not in its documentation.
        exchange=Exchange(
            url="https://api.anthropic.com/v1/oauth/token",
            grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer",  # RFC 7523
            token="assertion",
            needs=("federation_rule_id", "organization_id", "service_account_id"),
            takes=("workspace_id",),
            headers=MappingProxyType({"anthropic-beta": "oauth-2025-04-20,oidc-federation-2026-04-01"}),
            variables=MappingProxyType(
                {
                    "token_file": "ANTHROPIC_IDENTITY_TOKEN_FILE",
                    "federation_rule_id": "ANTHROPIC_FEDERATION_RULE_ID",
                    "organization_id": "ANTHROPIC_ORGANIZATION_ID",
                    "service_account_id": "ANTHROPIC_SERVICE_ACCOUNT_ID",
                    "workspace_id": "ANTHROPIC_WORKSPACE_ID",
                }
            ),
        ),
    ),
    vendor(
        "openai",
        "OPENAI_API_KEY",
        "https://api.openai.com/v1",
        base_url_env="OPENAI_BASE_URL",
        other_env="CODEX_API_KEY OPENAI_APIKEY",
        prefixes=("sk-proj-", "sk-svcacct-", "sk-admin-"),
        oauth=("https://auth.openai.com/oauth/token", "form", ""),
        model="gpt-4.1-nano",
        api="openai",
        requests=allowed.OPENAI,
        accounts=("openai-organization", "openai-project"),
        exchange=Exchange(
            url="https://auth.openai.com/oauth/token",
            grant_type=_TOKEN_EXCHANGE,
            token="subject_token",
            needs=("identity_provider_id", "service_account_id"),
            token_types=("jwt", "id_token"),
        ),
    ),
    vendor(
        "openai-codex",
        "",
        "https://chatgpt.com/backend-api",
        also=("codex",),
        # No tool reads these by default: Codex gets their names from its configuration.
        base_url_env="OPENAI_CODEX_BASE_URL",
        sdk_env="OPENAI_CODEX_TOKEN",
        header=HeaderForm(account="chatgpt-account-id"),
        other_env="CODEX_ACCESS_TOKEN",
        oauth=("https://auth.openai.com/oauth/token", "form", "app_EMoamEEZ73f0CkXaXp7hrann"),
        login=LoginForm(
            "openid profile email offline_access",
            authorize="https://auth.openai.com/oauth/authorize",
            redirect="http://localhost:1455/auth/callback",
            extra=MappingProxyType({"id_token_add_organizations": "true", "codex_cli_simplified_flow": "true"}),
        ),
        requests=allowed.OPENAI_CODEX,
    ),
    vendor(
        "openrouter",
        "OPENROUTER_API_KEY",
        "https://openrouter.ai/api/v1",
        prefixes=("sk-or-",),
        oauth=("https://openrouter.ai/api/v1/oauth/token", "form", ""),
        model="openai/gpt-4.1-nano",
        requests=allowed.OPENROUTER,
        exchange=Exchange(
            url="https://openrouter.ai/api/v1/oauth/token",
            grant_type=_TOKEN_EXCHANGE,
            token="subject_token",
            needs=("federation_policy_id",),
            token_types=("jwt",),
            encoding="form",
        ),
    ),
    vendor(
        "google",
        "GEMINI_API_KEY GOOGLE_API_KEY GOOGLE_GENERATIVE_AI_API_KEY",
        "https://generativelanguage.googleapis.com",
        base_url_env="GOOGLE_GEMINI_BASE_URL",
        sdk_env_also="GOOGLE_GENERATIVE_AI_API_KEY",  # the Vercel AI SDK
        other_env="VERTEX_API_KEY",
        also=("gemini",),
        header=HeaderForm("x-goog-api-key", ""),
        token_header=BEARER,
        prefixes=("AIza",),
        token_prefixes=("ya29.",),
        model="gemini-2.5-flash-lite",
        api="gemini",
        requests=allowed.GOOGLE,
    ),
    vendor(
        "github-copilot",
        "COPILOT_GITHUB_TOKEN GH_TOKEN GITHUB_TOKEN",
        "https://api.githubcopilot.com",
        also=("copilot",),
        prefixes=_GITHUB,
        token_prefixes=_GITHUB,
        requests=allowed.GITHUB_COPILOT,
    ),
    vendor(
        "zai",
        "ZAI_API_KEY Z_AI_API_KEY",
        "https://api.z.ai/api/paas/v4",
        also=("z.ai", "z-ai"),
        model="glm-4.5-flash",
        requests=allowed.ZAI,
    ),
    vendor(
        "opencode",
        "OPENCODE_API_KEY OPENCODE_ZEN_API_KEY",
        "https://opencode.ai/zen/v1",
        also=("opencode-zen",),
        model="gpt-5-nano",
        requests=allowed.OPENCODE,
    ),
    vendor(
        "qwen-portal",
        "QWEN_OAUTH_TOKEN QWEN_PORTAL_API_KEY",
        "https://portal.qwen.ai/v1",
        also=("qwen",),
        sdk_token_env="QWEN_OAUTH_TOKEN",
        other_env="DASHSCOPE_API_KEY",
        oauth=("https://chat.qwen.ai/api/v1/oauth2/token", "form", "f0304373b74a44d2b584a3fb70ca9e56"),
        login=LoginForm("openid profile email model.completion", device="https://chat.qwen.ai/api/v1/oauth2/device/code"),
        model="coder-model",
        requests=allowed.QWEN_PORTAL,
    ),
    vendor(
        "vercel-ai-gateway",
        "AI_GATEWAY_API_KEY",
        "https://ai-gateway.vercel.sh/v1",
        also=("vercel",),
        prefixes=("vck_",),
        model="openai/gpt-4.1-nano",
        requests=allowed.VERCEL_AI_GATEWAY,
    ),
    vendor(
        "kimi-code",
        "KIMICODE_API_KEY",
        "https://api.kimi.com/coding/v1",
        also=("kimi-coding",),
        prefixes=("sk-kimi-",),
        model="kimi-for-coding",
        requests=allowed.KIMI_CODE,
    ),
    vendor(
        "huggingface",
        "HUGGINGFACE_HUB_TOKEN HF_TOKEN",
        "https://router.huggingface.co/v1",
        also=("hf",),
        sdk_env="HF_TOKEN",
        other_env="HUGGINGFACEHUB_API_TOKEN HUGGING_FACE_HUB_TOKEN",
        prefixes=("hf_",),
        token_prefixes=("hf_",),
        model="meta-llama/Llama-3.1-8B-Instruct",
        requests=allowed.HUGGINGFACE,
    ),
    vendor(
        "chutes",
        "CHUTES_OAUTH_TOKEN CHUTES_API_KEY",
        "https://llm.chutes.ai/v1",
        prefixes=("cpk_",),
        oauth=("https://api.chutes.ai/idp/token", "form", ""),
        # It has no public client: the login needs `client_id` in the configuration.
        login=LoginForm(
            "openid profile chutes:invoke",
            authorize="https://api.chutes.ai/idp/authorize",
            redirect="http://127.0.0.1:1456/oauth-callback",
        ),
        api="chat",
        requests=allowed.CHUTES,
    ),
    vendor(
        "microsoft-foundry",
        "AZURE_OPENAI_API_KEY",
        base_url_env="AZURE_OPENAI_ENDPOINT",  # each resource has its own address
        also=("azure", "azure-openai"),
        other_env="AZURE_API_KEY",
        header=HeaderForm("api-key", ""),
        token_header=BEARER,
        requests=allowed.MICROSOFT_FOUNDRY,
    ),
    vendor(
        "groq",
        "GROQ_API_KEY",
        "https://api.groq.com/openai/v1",
        prefixes=("gsk_",),
        model="llama-3.1-8b-instant",
        requests=allowed.GROQ,
    ),
    vendor(
        "deepgram",
        "DEEPGRAM_API_KEY",
        "https://api.deepgram.com",
        header=HeaderForm("Authorization", "Token "),
        token_header=BEARER,
        requests=allowed.DEEPGRAM,
    ),
    vendor(
        "cerebras",
        "CEREBRAS_API_KEY",
        "https://api.cerebras.ai/v1",
        prefixes=("csk-",),
        model="llama3.1-8b",
        requests=allowed.CEREBRAS,
    ),
    vendor(
        "xai",
        "XAI_API_KEY",
        "https://api.x.ai/v1",
        also=("x.ai", "grok"),
        other_env="GROK_API_KEY",
        prefixes=("xai-",),
        model="grok-3-mini",
        requests=allowed.XAI,
    ),
    vendor(
        "moonshot",
        "MOONSHOT_API_KEY",
        "https://api.moonshot.ai/v1",
        also=("kimi",),
        model="moonshot-v1-8k",
        requests=allowed.MOONSHOT,
    ),
    vendor("minimax", "MINIMAX_API_KEY", "https://api.minimax.io/v1", model="MiniMax-M2", requests=allowed.MINIMAX),
    vendor(
        "synthetic",
        "SYNTHETIC_API_KEY",
        "https://api.synthetic.new/openai/v1",
        prefixes=("syn_",),
        model="hf:meta-llama/Llama-3.1-8B-Instruct",
        requests=allowed.SYNTHETIC,
    ),
    vendor(
        "venice",
        "VENICE_API_KEY",
        "https://api.venice.ai/api/v1",
        model="llama-3.2-3b",
        requests=allowed.VENICE,
    ),
    vendor("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1", model="mistral-small-latest", requests=allowed.MISTRAL),
    vendor("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com", model="deepseek-chat", requests=allowed.DEEPSEEK),
    vendor(
        "fireworks",
        "FIREWORKS_API_KEY",
        "https://api.fireworks.ai/inference/v1",
        model="accounts/fireworks/models/llama-v3p1-8b-instruct",
        requests=allowed.FIREWORKS,
    ),
    vendor(
        "together",
        "TOGETHER_API_KEY",
        "https://api.together.xyz/v1",
        base_url_env="TOGETHER_BASE_URL",
        other_env="TOGETHERAI_API_KEY",
        model="meta-llama/Llama-3.2-3B-Instruct-Turbo",
        requests=allowed.TOGETHER,
    ),
    vendor(
        "perplexity",
        "PERPLEXITY_API_KEY",
        "https://api.perplexity.ai",
        prefixes=("pplx-",),
        model="sonar",
        requests=allowed.PERPLEXITY,
    ),
    vendor(
        "nvidia",
        "NVIDIA_API_KEY",
        "https://integrate.api.nvidia.com/v1",
        prefixes=("nvapi-",),
        model="meta/llama-3.1-8b-instruct",
        requests=allowed.NVIDIA,
    ),
    # A self-hosted proxy, often with the key that creates all others.
    vendor("litellm", "LITELLM_API_KEY", own_keys=True, api="chat", requests=allowed.LITELLM),
    vendor("voyage", "VOYAGE_API_KEY", "https://api.voyageai.com/v1", requests=allowed.VOYAGE),
    vendor("exa", "EXA_API_KEY", "https://api.exa.ai", requests=allowed.EXA),
    vendor("tavily", "TAVILY_API_KEY", "https://api.tavily.com", prefixes=("tvly-",), requests=allowed.TAVILY),
    vendor("firecrawl", "FIRECRAWL_API_KEY", "https://api.firecrawl.dev", requests=allowed.FIRECRAWL),
    vendor(
        "brave",
        "BRAVE_API_KEY",
        "https://api.search.brave.com",
        header=HeaderForm("X-Subscription-Token", ""),
        requests=allowed.BRAVE,
    ),
    vendor(
        "elevenlabs",
        "ELEVENLABS_API_KEY",
        "https://api.elevenlabs.io",
        header=HeaderForm("xi-api-key", ""),
        other_env="XI_API_KEY",
        requests=allowed.ELEVENLABS,
    ),
)

PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({provider.id: forwarding.added(provider) for provider in _ALL})
"""Every built-in provider by its id."""

BUILT_IN: Final = Catalog(PROVIDERS)
"""The built-in providers, found by id or alias."""
VENDOR_URLS: Final[Mapping[str, str]] = MappingProxyType({known.id: known.base_url for known in PROVIDERS.values()})
"""The vendors' own addresses by provider id, whatever the configuration sets."""
