"""The vendors that are known without configuration. Adding one is adding it to the table, and nothing else.

Only prefixes that no other vendor's key can have are listed: many vendors hand out plain `sk-…`, which tells nothing. A prefix
that stands among both kinds says whose a credential is, but not what it is. Header forms, names and addresses are those of
the vendors' own documentation.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from equabot_broker.domain.provider import BEARER, Catalog, ClientMarks, EnvName, Exchange, HeaderForm, KeyForm, Mode, Provider
from equabot_broker.providers import allowed, forwarding, websockets

_TOKEN_WORDS: Final = ("OAUTH_TOKEN", "AUTH_TOKEN")
_TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693
CLAUDE_CODE: Final = "claude-code"
_GITHUB: Final = ("github_pat_", "ghp_", "gho_", "ghu_", "ghs_")


class _Login(NamedTuple):
    """Where a person logs in: at `authorize`, from which `redirect` comes back with a code, or with a device at `device`."""

    scopes: str
    authorize: str = ""
    redirect: str = ""
    device: str = ""
    extra: Mapping[str, str] = MappingProxyType({})


def list_names(env_names: tuple[EnvName, ...]) -> tuple[str, ...]:
    """The variables that hold several keys at once: `<P>_API_KEYS` for every `<P>_API_KEY`."""
    return tuple(f"{env.name}S" for env in env_names if env.name.endswith("_API_KEY"))


def _form(prefixes: tuple[str, ...], beginnings: Mapping[str, int]) -> KeyForm:
    return KeyForm(beginnings=MappingProxyType({prefix: len(prefix) + 4 for prefix in prefixes} | dict(beginnings)))


def _vendor(
    id: str,  # noqa: A002  (what it is called everywhere else)
    env: str,
    base_url: str = "",
    *,
    base_url_env: str = "",
    also: tuple[str, ...] = (),
    header: HeaderForm = BEARER,
    token_header: HeaderForm | None = None,
    sdk_env: str = "",
    sdk_token_env: str = "",
    sdk_env_also: str = "",
    other_env: str = "",
    prefixes: tuple[str, ...] = (),
    token_prefixes: tuple[str, ...] = (),
    beginnings: Mapping[str, int] = MappingProxyType({}),
    own_keys: bool = False,
    oauth: tuple[str, str, str] = ("", "json", ""),
    login: _Login = _Login(""),  # noqa: B008  (a tuple)
    model: str = "",
    api: str = "",
    requests: tuple[str, ...] = (),
    accounts: tuple[str, ...] = (),
    exchange: Exchange | None = None,
    exclusive: Mapping[str, str] = MappingProxyType({}),
) -> Provider:
    """`env`: the variables, in order of preference. `oauth`: token endpoint, its encoding, public client id. `model`: a small
    one to try a credential on, with a request in the form `api`, by default the one that most have taken over. `requests`: what
    may be asked through the gateway. `accounts`: the headers in which a request names one. `sdk_env_also` and `other_env` are
    variables, as in `Provider`. `exclusive`: the client program, by the prefix of the credentials that the vendor takes from
    this program alone. `beginnings`: how many characters a key that begins so has at least; by default, four more than a known
    prefix has. `own_keys`: its operator makes the keys up."""
    names = tuple(
        EnvName(name, Mode.TOKEN if any(word in name for word in _TOKEN_WORDS) else Mode.API_KEY) for name in env.split()
    )
    keys = (name.name for name in names if name.mode is Mode.API_KEY)
    headers, variables = {Mode.API_KEY: header}, {Mode.API_KEY: sdk_env or next(keys, "")}
    for mode in (Mode.TOKEN, Mode.OAUTH, Mode.WIF):
        headers[mode] = token_header or header
        variables[mode] = sdk_token_env or variables[Mode.API_KEY]
    token_url, token_encoding, client_id = oauth
    return Provider(
        id=id,
        aliases=also,
        env_names=names,
        list_env_names=list_names(names),
        headers=MappingProxyType(headers),
        sdk_env=MappingProxyType({mode: name for mode, name in variables.items() if name}),
        sdk_env_also=tuple(sdk_env_also.split()),
        other_env=tuple(other_env.split()),
        base_url=base_url,
        base_url_env=base_url_env,
        key_prefixes=prefixes,
        token_prefixes=token_prefixes,
        form=None if own_keys else _form((*prefixes, *token_prefixes), beginnings),
        token_url=token_url,
        token_encoding=token_encoding,
        client_id=client_id,
        authorize_url=login.authorize,
        authorize_extra=login.extra,
        device_url=login.device,
        redirect_url=login.redirect,
        scopes=tuple(login.scopes.split()),
        api=api or ("chat" if model else ""),
        probe_model=model,
        requests=requests,
        websockets=websockets.BY_PROVIDER.get(id, ()),
        accounts=accounts,
        exchange=exchange,
        exclusive=exclusive,
        clients=MappingProxyType({client: _CLIENTS[client] for client in exclusive.values()}),
    )


_CLIENTS: Final = MappingProxyType(
    {
        # The vendor's program says so in three places; programs that act in its name send the second and the third.
        CLAUDE_CODE: ClientMarks(
            commands=("claude",),
            agents=("claude-cli/", "claude-code/"),
            words=MappingProxyType({"anthropic-beta": ("claude-code-",), "x-app": ("cli",)}),
        )
    }
)

_ALL: Final = (
    _vendor(
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
        # A refresh token (ort) is no key either, and no request can be made with it.
        token_prefixes=("sk-ant-", "sk-ant-oat", "sk-ant-ort"),
        beginnings=MappingProxyType({"sk-ant-api03-": 16, "sk-ant-oat01-": 16, "sk-ant-ort01-": 16}),
        oauth=("https://platform.claude.com/v1/oauth/token", "json", "9d1c250a-e61b-44d9-88ed-5944d1962f5e"),
        login=_Login(
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
        # Not at the token endpoint of logins. The header is in the vendor's own client, not in its documentation.
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
    _vendor(
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
    _vendor(
        "openai-codex",
        "",
        "https://chatgpt.com/backend-api",
        also=("codex",),
        # No tool reads these by itself: Codex takes their names from its own configuration.
        base_url_env="OPENAI_CODEX_BASE_URL",
        sdk_env="OPENAI_CODEX_TOKEN",
        header=HeaderForm(account="chatgpt-account-id"),
        other_env="CODEX_ACCESS_TOKEN",
        oauth=("https://auth.openai.com/oauth/token", "form", "app_EMoamEEZ73f0CkXaXp7hrann"),
        login=_Login(
            "openid profile email offline_access",
            authorize="https://auth.openai.com/oauth/authorize",
            redirect="http://localhost:1455/auth/callback",
            extra=MappingProxyType({"id_token_add_organizations": "true", "codex_cli_simplified_flow": "true"}),
        ),
        requests=allowed.OPENAI_CODEX,
    ),
    _vendor(
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
    _vendor(
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
    _vendor(
        "github-copilot",
        "COPILOT_GITHUB_TOKEN GH_TOKEN GITHUB_TOKEN",
        "https://api.githubcopilot.com",
        also=("copilot",),
        prefixes=_GITHUB,
        token_prefixes=_GITHUB,
        requests=allowed.GITHUB_COPILOT,
    ),
    _vendor(
        "zai",
        "ZAI_API_KEY Z_AI_API_KEY",
        "https://api.z.ai/api/paas/v4",
        also=("z.ai", "z-ai"),
        model="glm-4.5-flash",
        requests=allowed.ZAI,
    ),
    _vendor(
        "opencode",
        "OPENCODE_API_KEY OPENCODE_ZEN_API_KEY",
        "https://opencode.ai/zen/v1",
        also=("opencode-zen",),
        model="gpt-5-nano",
        requests=allowed.OPENCODE,
    ),
    _vendor(
        "qwen-portal",
        "QWEN_OAUTH_TOKEN QWEN_PORTAL_API_KEY",
        "https://portal.qwen.ai/v1",
        also=("qwen",),
        sdk_token_env="QWEN_OAUTH_TOKEN",
        other_env="DASHSCOPE_API_KEY",
        oauth=("https://chat.qwen.ai/api/v1/oauth2/token", "form", "f0304373b74a44d2b584a3fb70ca9e56"),
        login=_Login("openid profile email model.completion", device="https://chat.qwen.ai/api/v1/oauth2/device/code"),
        model="coder-model",
        requests=allowed.QWEN_PORTAL,
    ),
    _vendor(
        "vercel-ai-gateway",
        "AI_GATEWAY_API_KEY",
        "https://ai-gateway.vercel.sh/v1",
        also=("vercel",),
        prefixes=("vck_",),
        model="openai/gpt-4.1-nano",
        requests=allowed.VERCEL_AI_GATEWAY,
    ),
    _vendor(
        "kimi-code",
        "KIMICODE_API_KEY",
        "https://api.kimi.com/coding/v1",
        also=("kimi-coding",),
        prefixes=("sk-kimi-",),
        model="kimi-for-coding",
        requests=allowed.KIMI_CODE,
    ),
    _vendor(
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
    _vendor(
        "chutes",
        "CHUTES_OAUTH_TOKEN CHUTES_API_KEY",
        "https://llm.chutes.ai/v1",
        prefixes=("cpk_",),
        oauth=("https://api.chutes.ai/idp/token", "form", ""),
        # Its clients are the operator's own: `client_id` in the configuration makes the login possible.
        login=_Login(
            "openid profile chutes:invoke",
            authorize="https://api.chutes.ai/idp/authorize",
            redirect="http://127.0.0.1:1456/oauth-callback",
        ),
        api="chat",
        requests=allowed.CHUTES,
    ),
    _vendor(
        "microsoft-foundry",
        "AZURE_OPENAI_API_KEY",
        base_url_env="AZURE_OPENAI_ENDPOINT",  # every resource has an address of its own
        also=("azure", "azure-openai"),
        other_env="AZURE_API_KEY",
        header=HeaderForm("api-key", ""),
        token_header=BEARER,
        requests=allowed.MICROSOFT_FOUNDRY,
    ),
    _vendor(
        "groq",
        "GROQ_API_KEY",
        "https://api.groq.com/openai/v1",
        prefixes=("gsk_",),
        model="llama-3.1-8b-instant",
        requests=allowed.GROQ,
    ),
    _vendor(
        "deepgram",
        "DEEPGRAM_API_KEY",
        "https://api.deepgram.com",
        header=HeaderForm("Authorization", "Token "),
        token_header=BEARER,
        requests=allowed.DEEPGRAM,
    ),
    _vendor(
        "cerebras",
        "CEREBRAS_API_KEY",
        "https://api.cerebras.ai/v1",
        prefixes=("csk-",),
        model="llama3.1-8b",
        requests=allowed.CEREBRAS,
    ),
    _vendor(
        "xai",
        "XAI_API_KEY",
        "https://api.x.ai/v1",
        also=("x.ai", "grok"),
        other_env="GROK_API_KEY",
        prefixes=("xai-",),
        model="grok-3-mini",
        requests=allowed.XAI,
    ),
    _vendor(
        "moonshot",
        "MOONSHOT_API_KEY",
        "https://api.moonshot.ai/v1",
        also=("kimi",),
        model="moonshot-v1-8k",
        requests=allowed.MOONSHOT,
    ),
    _vendor("minimax", "MINIMAX_API_KEY", "https://api.minimax.io/v1", model="MiniMax-M2", requests=allowed.MINIMAX),
    _vendor(
        "synthetic",
        "SYNTHETIC_API_KEY",
        "https://api.synthetic.new/openai/v1",
        prefixes=("syn_",),
        model="hf:meta-llama/Llama-3.1-8B-Instruct",
        requests=allowed.SYNTHETIC,
    ),
    _vendor(
        "venice",
        "VENICE_API_KEY",
        "https://api.venice.ai/api/v1",
        model="llama-3.2-3b",
        requests=allowed.VENICE,
    ),
    _vendor("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1", model="mistral-small-latest", requests=allowed.MISTRAL),
    _vendor("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com", model="deepseek-chat", requests=allowed.DEEPSEEK),
    _vendor(
        "fireworks",
        "FIREWORKS_API_KEY",
        "https://api.fireworks.ai/inference/v1",
        model="accounts/fireworks/models/llama-v3p1-8b-instruct",
        requests=allowed.FIREWORKS,
    ),
    _vendor(
        "together",
        "TOGETHER_API_KEY",
        "https://api.together.xyz/v1",
        base_url_env="TOGETHER_BASE_URL",
        other_env="TOGETHERAI_API_KEY",
        model="meta-llama/Llama-3.2-3B-Instruct-Turbo",
        requests=allowed.TOGETHER,
    ),
    _vendor(
        "perplexity",
        "PERPLEXITY_API_KEY",
        "https://api.perplexity.ai",
        prefixes=("pplx-",),
        model="sonar",
        requests=allowed.PERPLEXITY,
    ),
    _vendor(
        "nvidia",
        "NVIDIA_API_KEY",
        "https://integrate.api.nvidia.com/v1",
        prefixes=("nvapi-",),
        model="meta/llama-3.1-8b-instruct",
        requests=allowed.NVIDIA,
    ),
    _vendor(
        "litellm",  # a proxy that people run themselves, often with the key that makes all others
        "LITELLM_API_KEY",
        own_keys=True,
        api="chat",
        requests=allowed.LITELLM,
    ),
    _vendor("voyage", "VOYAGE_API_KEY", "https://api.voyageai.com/v1", requests=allowed.VOYAGE),
    _vendor("exa", "EXA_API_KEY", "https://api.exa.ai", requests=allowed.EXA),
    _vendor("tavily", "TAVILY_API_KEY", "https://api.tavily.com", prefixes=("tvly-",), requests=allowed.TAVILY),
    _vendor("firecrawl", "FIRECRAWL_API_KEY", "https://api.firecrawl.dev", requests=allowed.FIRECRAWL),
    _vendor(
        "brave",
        "BRAVE_API_KEY",
        "https://api.search.brave.com",
        header=HeaderForm("X-Subscription-Token", ""),
        requests=allowed.BRAVE,
    ),
    _vendor(
        "elevenlabs",
        "ELEVENLABS_API_KEY",
        "https://api.elevenlabs.io",
        header=HeaderForm("xi-api-key", ""),
        other_env="XI_API_KEY",
        requests=allowed.ELEVENLABS,
    ),
)

PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType({provider.id: forwarding.added(provider) for provider in _ALL})
"""Every built-in vendor by its id."""

BUILT_IN: Final = Catalog(PROVIDERS)
VENDOR_URLS: Final[Mapping[str, str]] = MappingProxyType({known.id: known.base_url for known in PROVIDERS.values()})
"""The vendors' own addresses, by provider id, whatever a configuration makes of them."""
"""The same, to be asked by any spelling."""
