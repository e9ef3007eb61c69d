"""Requests from the vendors' API references, a vendor a row: those that agents make, and those that no agent may make. Paths
are whole, as the vendor receives them at its own address (for a vendor without one: at the usual one)."""

from typing import Final

BASES: Final = {"litellm": "http://litellm.internal:4000", "microsoft-foundry": "https://acme.openai.azure.com"}
"""The addresses of vendors without a common one."""

NEEDED: Final[dict[str, str]] = {
    "anthropic": """
        POST /v1/messages
        POST /v1/messages/count_tokens
        POST /v1/messages/batches
        GET /v1/messages/batches/msgbatch_01/results
        GET /v1/models
        HEAD /v1/models/claude-opus-4-1
        POST /v1/files
        GET /v1/files/file_011CNha8iCJcU1wXNR6q4V8w/content
        DELETE /v1/files/file_011CNha8iCJcU1wXNR6q4V8w
        GET /v1/skills/skill_01/versions/1759178010641129
        POST /v1/agents
        GET /v1/agents/agent_01/versions
        POST /v1/environments
        POST /v1/sessions
        GET /v1/sessions/sesn_01/events/stream
        POST /v1/sessions/sesn_01/events
        DELETE /v1/sessions/sesn_01/resources/sesrsc_01
        POST /v1/memory_stores/memstore_01/memories
        GET /v1/memory_stores/memstore_01/memory_versions/memver_01
    """,
    "openai": """
        POST /v1/responses
        GET /v1/responses
        GET /v1/responses/resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b
        POST /v1/responses/input_tokens
        POST /v1/chat/completions
        POST /v1/completions
        POST /v1/embeddings
        POST /v1/images/generations
        POST /v1/images/edits
        POST /v1/audio/speech
        POST /v1/audio/transcriptions
        POST /v1/moderations
        GET /v1/models
        GET /v1/models/ft:gpt-4o-mini-2024-07-18:acme::abc123
        POST /v1/files
        GET /v1/files/file-abc123/content
        POST /v1/batches
        POST /v1/batches/batch_abc123/cancel
        POST /v1/uploads/upload_abc123/parts
        POST /v1/vector_stores/vs_abc123/search
        POST /v1/conversations/conv_123/items
        GET /v1/containers/cntr_1/files/cfile_1/content
        GET /v1/videos/video_123/content
        GET /v1/realtime
    """,
    "openai-codex": """
        POST /backend-api/codex/responses
        GET /backend-api/codex/responses
        POST /backend-api/codex/responses/compact
        GET /backend-api/codex/models
    """,
    "openrouter": """
        POST /api/v1/chat/completions
        POST /api/v1/messages
        POST /api/v1/responses
        POST /api/v1/embeddings
        GET /api/v1/models
        GET /api/v1/models/anthropic/claude-sonnet-4:free/endpoints
        GET /api/v1/generation
    """,
    "google": """
        POST /v1beta/models/gemini-2.5-flash:generateContent
        POST /v1beta/models/gemini-2.5-flash:streamGenerateContent
        POST /v1alpha/models/gemini-2.5-flash:generateContent
        POST /v1/models/gemini-2.5-flash:generateContent
        POST /v1beta/models/gemini-2.5-flash:countTokens
        POST /v1beta/models/gemini-embedding-001:batchEmbedContents
        POST /v1beta/models/gemini-2.5-flash:batchGenerateContent
        POST /v1beta/models/imagen-4.0-generate-001:predict
        POST /v1beta/models/veo-3.0-generate-001:predictLongRunning
        GET /v1beta/models/veo-3.0-generate-001/operations/abc
        GET /v1beta/models
        POST /upload/v1beta/files
        GET /v1beta/files/abc-123
        GET /v1beta/files/abc-123:download
        PATCH /v1beta/cachedContents/abc
        POST /v1beta/openai/chat/completions
        GET /ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent
    """,
    "github-copilot": """
        POST /chat/completions
        POST /responses
        POST /v1/messages
        POST /embeddings
        GET /models
    """,
    "zai": """
        POST /api/paas/v4/chat/completions
        POST /api/paas/v4/web_search
        GET /api/paas/v4/async-result/123
    """,
    "opencode": """
        POST /zen/v1/chat/completions
        POST /zen/v1/responses
        POST /zen/v1/messages
        POST /zen/v1/models/gemini-3-pro:streamGenerateContent
        GET /zen/v1/models
    """,
    "qwen-portal": "POST /v1/chat/completions",
    "vercel-ai-gateway": """
        POST /v1/chat/completions
        POST /v1/messages
        POST /v1/embeddings
        GET /v1/models
    """,
    "kimi-code": """
        POST /coding/v1/chat/completions
        POST /coding/v1/messages
        POST /coding/v1/search
    """,
    "huggingface": """
        POST /v1/chat/completions
        POST /v1/responses
        GET /v1/models
    """,
    "chutes": "POST /v1/chat/completions",
    "microsoft-foundry": """
        POST /openai/deployments/gpt-4o/chat/completions
        POST /openai/deployments/gpt-4o-of-our-key-account/embeddings
        POST /openai/v1/responses
        POST /openai/v1/chat/completions
        POST /openai/responses
        GET /openai/v1/realtime
        GET /openai/realtime
        POST /models/chat/completions
        POST /anthropic/v1/messages
    """,
    "groq": """
        POST /openai/v1/chat/completions
        POST /openai/v1/responses
        POST /openai/v1/audio/transcriptions
        GET /openai/v1/models
    """,
    "deepgram": """
        POST /v1/listen
        GET /v1/listen
        GET /v2/listen
        POST /v1/speak
        GET /v1/models
    """,
    "cerebras": """
        POST /v1/chat/completions
        GET /v1/models
    """,
    "xai": """
        POST /v1/chat/completions
        POST /v1/responses
        POST /v1/images/generations
        POST /v1/videos/generations
        GET /v1/videos/123
        GET /v1/chat/deferred-completion/123
        POST /v1/tts
        POST /v1/tokenize-text
        GET /v1/language-models/grok-4
        GET /v1/realtime
    """,
    "moonshot": """
        POST /v1/chat/completions
        POST /v1/files
        POST /v1/tokenizers/estimate-token-count
    """,
    "minimax": """
        POST /v1/chat/completions
        POST /v1/t2a_v2
        GET /v1/query/video_generation
        POST /v1/files/upload
    """,
    "synthetic": """
        POST /openai/v1/chat/completions
        GET /openai/v1/models/hf:meta-llama
    """,
    "venice": """
        POST /api/v1/chat/completions
        POST /api/v1/image/generate
        GET /api/v1/characters/alan-watts
    """,
    "mistral": """
        POST /v1/chat/completions
        POST /v1/fim/completions
        POST /v1/embeddings
        POST /v1/ocr
        POST /v1/conversations/conv_1
        GET /v1/files/8b9ab9a7/content
        GET /v1/audio/transcriptions/realtime
    """,
    "deepseek": """
        POST /chat/completions
        POST /v1/chat/completions
        POST /beta/completions
        POST /anthropic/v1/messages
    """,
    "fireworks": """
        POST /inference/v1/chat/completions
        POST /inference/v1/embeddings
        POST /inference/v1/workflows/accounts/fireworks/models/flux-1-schnell-fp8/text_to_image
    """,
    "together": """
        POST /v1/chat/completions
        POST /v1/rerank
        POST /v1/images/generations
        GET /v1/files/file-1/content
    """,
    "perplexity": """
        POST /chat/completions
        POST /v1/sonar
        POST /search
        GET /async/chat/completions/123
        POST /v1/responses
    """,
    "nvidia": """
        POST /v1/chat/completions
        POST /v1/embeddings
    """,
    "litellm": """
        POST /chat/completions
        POST /v1/chat/completions
        POST /v1/messages
        POST /v1/responses
        POST /embeddings
        POST /rerank
        GET /v1/models
    """,
    "voyage": """
        POST /v1/embeddings
        POST /v1/rerank
        POST /v1/multimodalembeddings
    """,
    "exa": """
        POST /search
        POST /contents
        POST /answer
        GET /research/v1/r_01
    """,
    "tavily": """
        POST /search
        POST /extract
        POST /crawl
        GET /research/123e4567
    """,
    "firecrawl": """
        POST /v2/scrape
        POST /v1/scrape
        POST /v2/search
        GET /v2/crawl/123e4567-e89b
        DELETE /v2/batch/scrape/123e4567-e89b
    """,
    "brave": """
        GET /res/v1/web/search
        GET /res/v1/llm/context
        GET /res/v1/local/pois
    """,
    "elevenlabs": """
        POST /v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream
        GET /v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream-input
        POST /v1/speech-to-text
        GET /v1/speech-to-text/realtime
        GET /v2/voices
        POST /v1/sound-generation
    """,
}
FORBIDDEN: Final[dict[str, str]] = {
    "anthropic": """
        GET /v1/organizations/me
        POST /v1/organizations/invites
        GET /v1/organizations/api_keys
        POST /v1/oauth/token
        POST /v1/vaults
        GET /v1/vaults/v/credentials
        POST /v1/vaults/v/credentials
        POST /v1/tunnels/t/reveal_token
        POST /v1/tunnels/t/rotate_token
        POST /v1/user_profiles/u/enrollment_url
        POST /v1/deployments
        GET /v1/environments/e/work/poll
        POST /v1/environments/e/keys
    """,
    "openai": """
        POST /v1/realtime/client_secrets
        POST /v1/realtime/translations/client_secrets
        POST /v1/realtime/sessions
        POST /v1/realtime/transcription_sessions
        POST /v1/realtime/calls
        POST /v1/chatkit/sessions
        GET /v1/organization/admin_api_keys
        POST /v1/organization/invites
        GET /v1/organization/costs
        POST /v1/organization/projects/p/service_accounts
        GET /v1/projects/p/roles
        POST /v1/fine_tuning/jobs
        POST /v1/fine_tuning/checkpoints/ft:gpt/permissions
        DELETE /v1/models/ft:gpt
        GET /v1/dashboard/billing/credit_grants
        GET /v1/me
        POST /v1/webhooks
    """,
    "openai-codex": """
        GET /backend-api/me
        GET /backend-api/accounts/check
        POST /backend-api/accounts/logout
        GET /backend-api/conversations
        GET /backend-api/wham/usage
        GET /backend-api/codex/environments
        GET /backend-api/codex/config/requirements
        POST /backend-api/codex/realtime/calls
    """,
    "openrouter": """
        GET /api/v1/key
        GET /api/v1/keys
        POST /api/v1/keys
        POST /api/v1/auth/keys
        POST /api/v1/auth/keys/code
        GET /api/v1/credits
        POST /api/v1/credits/coinbase
        GET /api/v1/activity
        GET /api/v1/organization/members
        POST /api/v1/guardrails
        POST /api/v1/byok
        POST /api/v1/oauth/token
    """,
    "google": """
        POST /v1alpha/auth_tokens
        POST /v1beta/auth_tokens
        POST /v1beta/tunedModels/x/permissions
        GET /v1beta/tunedModels/x/permissions
        POST /v1beta/tunedModels/x:transferOwnership
        POST /v1beta/models/x:transferOwnership
        POST /v1beta/models/x%3AtransferOwnership
        POST /v1beta/corpora/c/permissions
        POST /batch
        POST /batch/v1beta
        POST /v1beta/tunedModels
        GET /ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained
    """,
    "github-copilot": """
        POST /mcp/
        POST /mcp
        GET /mcp/readonly
        POST /mcp/x/repos
        POST /models/session
        POST /models/gpt-5/policy
        GET /copilot_internal/v2/token
        GET /agents
        POST /agents/swe/v1/jobs
    """,
    "zai": "GET /api/monitor/usage/quota/limit",
    "opencode": "GET /zen/v1/keys",
    "qwen-portal": "POST /api/v1/oauth2/token",
    "vercel-ai-gateway": """
        GET /v1/credits
        GET /v1/report
    """,
    "kimi-code": """
        GET /coding/v1/usages
        POST /coding/v1/tools
    """,
    "huggingface": """
        GET /api/whoami-v2
        GET /v1/settings/tokens
    """,
    "chutes": """
        POST /api_keys/
        GET /users/me
    """,
    "microsoft-foundry": """
        POST /openai/v1/realtime/client_secrets
        POST /openai/realtime/client_secrets
        POST /openai/realtimeapi/sessions
        POST /openai/v1/realtime/calls
        GET /openai/deployments
        DELETE /openai/deployments/gpt-4o
        POST /openai/deployments
        POST /openai/fine_tuning/jobs
        POST /sts/v1.0/issueToken
        GET /api/projects/p/connections
        POST /api/projects/p/connections/c/getConnectionWithCredentials
    """,
    "groq": """
        GET /openai/v1/organization/keys
        POST /openai/v1/fine_tunings
    """,
    "deepgram": """
        POST /v1/auth/grant
        GET /v1/auth/token
        GET /v1/projects
        POST /v1/projects/p/keys
        GET /v1/projects/p/members
        GET /v1/projects/p/balances
        POST /v1/projects/p/invites
        POST /v1/agent/settings
    """,
    "cerebras": "POST /management/v1/api-keys",
    "xai": """
        POST /v1/realtime/client_secrets
        GET /v1/api-key
        POST /v1/files/f/public-url
        GET /auth/teams/t/api-keys
        POST /v1/custom-voices
    """,
    "moonshot": """
        GET /v1/users/me/balance
        POST /v1/keys
    """,
    "minimax": """
        GET /v1/get_user_info
        GET /v1/coding_plan/remains
    """,
    "synthetic": "GET /v2/quotas",
    "venice": """
        GET /api/v1/api_keys
        POST /api/v1/api_keys
        DELETE /api/v1/api_keys
        GET /api/v1/api_keys/rate_limits
        GET /api/v1/api_keys/generate_web3_key
        POST /api/v1/api_keys/generate_web3_key
        GET /api/v1/billing/usage
        GET /api/v1/billing/balance
        POST /api/v1/x402/top-up
        POST /api/v1/crypto/rpc/ethereum-mainnet
    """,
    "mistral": """
        POST /v1/client/sessions
        GET /v1/files/f/url
        POST /v1/fine_tuning/jobs
        POST /v1/libraries/l/share
        GET /v1/libraries/l/documents/d/signed-url
        POST /v1/models/m/archive
    """,
    "deepseek": "GET /user/balance",
    "fireworks": """
        GET /v1/accounts
        POST /v1/accounts/a/users/u/apiKeys
        POST /v1/accounts/a/secrets
        POST /inference/v1/workflows/accounts/acme/models/m
        POST /v1/accounts/a/deployments
    """,
    "together": """
        GET /v1/whoami
        POST /v1/fine-tunes
        POST /v1/endpoints
        GET /v1/tci/sessions
        GET /v1/organizations/o/endpoints
        POST /v1/projects/p/api-keys
    """,
    "perplexity": """
        POST /generate_auth_token
        POST /revoke_auth_token
        POST /v1/auth/tokens
    """,
    "nvidia": "POST /v2/nvcf/functions",
    "litellm": """
        POST /model/new
        POST /model/update
        GET /model/info
        POST /invitation/new
        POST /key/generate
        GET /key/info
        POST /v2/key/info
        POST /jwt/key/mapping/new
        GET /get/config/callbacks
        POST /config/update
        GET /settings
        POST /user/new
        POST /team/new
        POST /organization/new
        POST /credentials
        GET /spend/logs
        POST /budget/new
        POST /guardrails
        POST /mcp/
        GET /v1/mcp/server
        POST /sso/key/generate
        POST /openai/assistants
        POST /config/pass_through_endpoint
        GET /health
        GET /callbacks/list
        POST /cache/flushall
        POST /v1/realtime/client_secrets
    """,
    "voyage": "GET /v1/organization/keys",
    "exa": """
        POST /team-management/api-keys
        POST /api-keys
        POST /websets/v0/webhooks
        GET /websets/v0/teams/me
    """,
    "tavily": """
        POST /generate-keys
        POST /deactivate-keys
        GET /key-info
        GET /usage
    """,
    "firecrawl": """
        GET /v2/team/credit-usage
        GET /v1/team/token-usage
        POST /v2/browser
        POST /v1/keys
        POST /admin/add-user
    """,
    "brave": "GET /app/keys",
    "elevenlabs": """
        GET /v1/convai/conversation/token
        GET /v1/convai/conversation/get-signed-url
        GET /v1/convai/conversation/get_signed_url
        GET /v1/convai/secrets
        POST /v1/convai/secrets
        POST /v1/convai/agents/create
        GET /v1/convai/settings
        GET /v1/user
        GET /v1/user/
        GET /v1/user/subscription
        POST /v1/single-use-token/realtime_scribe
        GET /v1/service-accounts
        POST /v1/service-accounts/u/api-keys
        POST /v1/workspace/invites/add
        GET /v1/workspace/webhooks
        GET /v1/voices/settings/default
        POST /v1/voices/v/settings/edit
        GET /v1/history
    """,
}


def rows(table: dict[str, str]) -> list[tuple[str, str, str]]:
    """Provider, method, path."""
    lines = ((provider, line.split()) for provider, text in table.items() for line in text.strip().splitlines())
    return [(provider, method, path) for provider, (method, path) in lines]
